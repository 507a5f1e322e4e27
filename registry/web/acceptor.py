"""Takes connections from a listening socket that several workers share.

Law: the worker with the fewest open connections goes first; one that has clearly more waits a millisecond, in which
the others may take the connection, and then takes it itself, so a worker that hangs holds up nobody. Left to the event
loop, whoever wakes first takes the whole burst: measured, all 16 connections of a load generator went to one of two
workers. SO_REUSEPORT would deal them out by chance, and let a second server listen on the port unnoticed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable

__all__ = ["Acceptor"]

HANDSHAKE_SECONDS = 10.0
"""Seconds for a TLS handshake: the deadline of a head, for the part of a connection that we never see."""

FAREWELL_SECONDS = 1.0
"""Seconds that a client gets to answer the end of a TLS connection; most never do."""

_GIVE_WAY = 0.001  # seconds
_BURST = 16  # connections taken at once, before others get a chance to be served
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RECOVER = 0.5  # seconds without accepting when the system has no room for another connection
_log = logging.getLogger(__name__)


class Acceptor:
    """Accepts until it is closed.

    Args:
        factory: makes the protocol of a connection.
        tls: what a connection that begins now is encrypted by; None: nothing. May be set anew at any time.
        gives_way: whether another worker should go first, given how many connections are being greeted here.
    """

    def __init__(
        self,
        sock: socket.socket,
        factory: Callable[[], asyncio.Protocol],
        *,
        tls: ssl.SSLContext | None,
        gives_way: Callable[[int], bool],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._factory = factory
        self.tls = tls
        self._gives_way = gives_way
        self._timer: asyncio.TimerHandle | None = None
        self._greetings: set[asyncio.Task[None]] = set()
        sock.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accepts no more, and closes this process's copy of the socket."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for greeting in self._greetings:
            greeting.cancel()

    def _listen(self) -> None:
        self._loop.add_reader(self._sock, self._knock)

    def _knock(self) -> None:
        for _ in range(_BURST):
            if self._gives_way(len(self._greetings)):
                self._pause(_GIVE_WAY)
                break
            if not self._accept():
                break

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._sock)
        self._timer = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._listen()
        self._accept()

    def _accept(self) -> bool:
        """Takes one connection; says whether there was one."""
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False  # another worker was first, or the client has thought better of it
        except OSError as exc:
            if exc.errno not in _EXHAUSTED:
                raise
            _log.error("cannot accept connections just now: %s", exc.strerror)
            self._pause(_RECOVER)
            return False
        greeting = self._loop.create_task(self._greet(sock))
        self._greetings.add(greeting)
        greeting.add_done_callback(self._greetings.discard)
        return True

    async def _greet(self, sock: socket.socket) -> None:
        try:
            sock.setblocking(False)
            # Without it the second small write of an answer waits 40 ms for the client's delayed ACK. uvloop sets it
            # itself; asyncio only on sockets whose protocol number it was told.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(
                self._factory,
                sock,
                ssl=self.tls,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if self.tls else None,
                ssl_shutdown_timeout=FAREWELL_SECONDS if self.tls else None,
            )
        except (OSError, ssl.SSLError) as exc:  # no TLS spoken, or gone already: nobody is there to be told
            _log.debug("connection lost before it began: %s", exc)
            sock.close()
