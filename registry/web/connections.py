"""What the connections of one worker share: how many there are, whose they are, when each is over."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from moorage.registry.web.head import Refused
from uvicorn.server import ServerState

__all__ = ["MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_ADDRESS", "ConnectionMeter", "State", "untaken"]

MAX_CONNECTIONS = 4096
"""Open connections of one worker."""

MAX_CONNECTIONS_PER_ADDRESS = 256
"""Open connections of one worker from one address. Exempt are trusted proxies, which bring everybody's connections from
theirs, and loopback: a proxy may be there, and whoever runs programs here has better ways to hurt us."""

LOOPBACK: Final = ("127.", "::1", "::ffff:127.")


class ConnectionMeter(Protocol):
    """Counts what happens below the app."""

    def connection_opened(self) -> None:
        """A connection was accepted."""

    def connection_closed(self) -> None:
        """A connection is gone."""

    def running(self, count: int) -> None:
        """So many requests are being answered; told every 100 ms."""

    def refused(self, reason: str) -> None:
        """A request or connection was refused for a reason of the fixed set ``head.REASONS``."""


class State(ServerState):
    """What the connections of one worker share. ``is_proxy``: whether an address brings those of others."""

    def __init__(self, meter: ConnectionMeter, is_proxy: Callable[[str], bool]) -> None:
        super().__init__()
        self.meter = meter
        self.is_proxy = is_proxy
        self.date_line = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        self.by_address: dict[str, int] = {}

    def enter(self, connection: Any, address: str) -> Refused | None:
        """Counts a new connection in; says why, if it is one too many."""
        self.connections.add(connection)
        self.by_address[address] = count = self.by_address.get(address, 0) + 1
        self.meter.connection_opened()
        if len(self.connections) > MAX_CONNECTIONS:
            return Refused(503, "too_many_connections", "too many connections, try again")
        if count > MAX_CONNECTIONS_PER_ADDRESS and not address.startswith(LOOPBACK) and not self.is_proxy(address):
            return Refused(429, "too_many_connections", "too many connections from this address")
        return None

    def leave(self, connection: Any, address: str) -> None:
        """Counts a connection out."""
        self.connections.discard(connection)
        self.meter.connection_closed()
        if (count := self.by_address.pop(address, 1) - 1) > 0:
            self.by_address[address] = count

    def sweep(self, now: float) -> None:
        """Expires every connection whose deadline is over, and tells the meter. ``now``: the loop's time."""
        self.meter.running(len(self.tasks))
        connections: Iterable[Any] = self.connections
        for connection in [each for each in connections if each.deadline < now]:
            connection.expire(now)


def untaken(transport: asyncio.Transport) -> int:
    """Bytes written to ``transport`` that the client's machine has not taken yet.

    Our buffer alone would not show the progress of a slow client: the kernel's behind it holds megabytes, and wakes us
    only when a third of it is free.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:  # closed meanwhile: nobody takes anything any more
        return transport.get_write_buffer_size()
    (unsent,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
    return transport.get_write_buffer_size() + int(unsent)
