"""A TCP proxy that is as bad as networks are: between a registry and its store it delays, cuts, resets and swallows.

Law: what a fault does not forbid passes unchanged and in order. The fault of the moment is ``proxy.fault``; it holds
for every connection at once, the open ones too, and can be changed by any thread. A connection that met a black hole
stays dead when the hole closes, as behind a router that lost its table: whoever had it must let go of it himself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

__all__ = ["FINE", "Fault", "FaultProxy", "Scene", "sometimes"]

_PIECE: Final = 64 * 1024
_RESET: Final = struct.pack("ii", 1, 0)
_SLOW_DOWN: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: 56\r\n\r\n<Error><Code>SlowDown</Code><Message>m</Message></Error>"
)


@dataclass(frozen=True)
class Scene:
    """What just came. ``answers``: from the server; ``first``: the first piece since the other side spoke;
    ``carried``: bytes that went this way since then; ``head``: how the request under way began."""

    answers: bool
    first: bool
    carried: int
    head: bytes


@dataclass(frozen=True)
class Fault:
    """What happens to pieces of traffic for which ``when`` is true; the others pass.

    ``delay``: seconds that a piece is late; ``cut``: the connection ends in order after so many bytes of an answer (or
    request); ``reset``: likewise with a reset; ``swallow``: nothing passes, nothing ends; ``unavailable``: requests are
    answered 503 SlowDown and go no further; ``rate``: bytes per second.
    """

    when: Callable[[Scene], bool] = lambda scene: True
    delay: float = 0.0
    cut: int | None = None
    reset: int | None = None
    swallow: bool = False
    unavailable: bool = False
    rate: float | None = None


FINE: Final = Fault()


class _Broken(Exception):
    """Ends both sides of a connection."""


@dataclass(eq=False)
class _Link:
    """One connection with both its ends."""

    proxy: FaultProxy
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    head: bytes = b""
    carried: int = 0
    answering: bool = True

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        """Carries one direction until its end."""
        while piece := await reader.read(_PIECE):
            is_go_ahead = answers and piece.startswith(b"HTTP/1.1 100 ") and piece.endswith(b"\r\n\r\n")
            first = self.answering != answers and not is_go_ahead
            if first:
                self.answering, self.carried = answers, 0
                self.head = self.head if answers else piece[:200]
            scene = Scene(answers, first, self.carried, self.head)
            self.carried += len(piece)
            await self._pass(piece, writer, scene)
        writer.write_eof()

    async def _pass(self, piece: bytes, writer: asyncio.StreamWriter, scene: Scene) -> None:
        fault = self.proxy.fault
        if not fault.when(scene):
            fault = FINE
        elif fault is not FINE:
            self.proxy.met += 1
        await asyncio.sleep(fault.delay + (len(piece) / fault.rate if fault.rate else 0))
        if fault.swallow:
            await asyncio.Event().wait()
        if fault.unavailable and not scene.answers:
            self.client.write(_SLOW_DOWN)
            await self.client.drain()
            raise _Broken
        for limit, is_reset in ((fault.cut, False), (fault.reset, True)):
            if limit is not None and scene.carried + len(piece) > limit:
                writer.write(piece[: max(0, limit - scene.carried)])
                if is_reset:
                    self.client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                raise _Broken
        writer.write(piece)
        await writer.drain()


class FaultProxy:
    """The proxy, in a thread with a loop of its own. Use it as a context manager. ``met``: pieces that met a fault.

    Args:
        host, port: the server behind it.
    """

    def __init__(self, host: str, port: int) -> None:
        self.fault = FINE
        self.met = 0
        self._server = (host, port)
        self._started = threading.Event()
        self._links: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        assert self._started.wait(60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    @property
    def endpoint(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """The fault holds while the block lasts."""
        self.fault = fault
        try:
            yield
        finally:
            self.fault = FINE

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0, limit=_PIECE, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        # A reset loses what the kernel still holds: let that be little, or a slow reader never sees what was "carried".
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._server, limit=_PIECE)
        except OSError:
            writer.transport.abort()
            self._links.discard(task)
            return
        link = _Link(self, writer, far_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(link.pump(reader, far_writer, answers=False))
                group.create_task(link.pump(far_reader, writer, answers=True))
        except* (OSError, _Broken):
            pass  # the ends are told by what happens below
        except* asyncio.CancelledError:
            pass  # the proxy stops
        finally:
            self._links.discard(task)
            writer.close()
            far_writer.close()


def sometimes(chance: float, *, seed: int) -> Callable[[Scene], bool]:
    """True for that share of first pieces of answers: the request was carried out, its answer is lost."""
    dice = random.Random(seed)
    return lambda scene: scene.answers and scene.first and dice.random() < chance
