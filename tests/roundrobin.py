"""A load balancer that never sends two requests in a row to the same replica.

Law: bytes pass unchanged, and every request has a connection of its own behind us, so nothing but the balancing differs
from asking a replica. What is not HTTP (clients try TLS first) a replica answers as well.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle
from urllib.parse import urlsplit

from tests.inthread import InThread

__all__ = ["RoundRobin"]

_PIECE = 256 * 1024
_LIMIT = 1024 * 1024
_HEAD_END = b"\r\n\r\n"
_LINGER = 5.0
"""Seconds for a client to notice that it was answered before it had sent everything; closing at once could cost it the
answer (RFC 9112 section 9.6)."""


class RoundRobin(InThread):
    """``with RoundRobin(urls) as balancer:`` listens on a free loopback port.

    Args:
        tls: the contexts of a server, for clients, and of a client, for the replicas: it speaks TLS to both.

    Attributes:
        url: ``http://127.0.0.1:PORT``, with ``tls`` https.
        sent: how many requests each replica got.
        heads: the last hundred requests as they came, without their bodies.
    """

    url: str

    def __init__(self, replicas: Sequence[str], *, tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None) -> None:
        self._turns = cycle(replicas)
        self._front: ssl.SSLContext | None = tls[0] if tls else None
        self._back: ssl.SSLContext | None = tls[1] if tls else None
        self.sent: Counter[str] = Counter()
        self.heads: deque[bytes] = deque(maxlen=100)

    async def _open(self) -> asyncio.Server:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"{'https' if self._front else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        return await asyncio.start_server(self._serve, sock=listener, limit=_LIMIT, ssl=self._front)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(
            ConnectionError,
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            asyncio.CancelledError,
        ):
            while await self._exchange(reader, writer):
                pass
            if writer.can_write_eof():  # TLS ends both ways at once
                writer.write_eof()
                async with asyncio.timeout(_LINGER):
                    while await reader.read(_PIECE):
                        pass
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Passes one request on and its answer back; says whether another may follow."""
        first = await reader.readexactly(1)
        replica = next(self._turns)
        self.sent[replica] += 1
        place = urlsplit(replica)
        behind, ahead = await asyncio.open_connection(place.hostname, place.port, limit=_LIMIT, ssl=self._back)
        try:
            if not first.isalpha():
                return await _refuse(first, behind, ahead, writer)
            request = _Head(first + await reader.readuntil(_HEAD_END))
            self.heads.append(request.raw)
            return await _converse(request, reader, writer, behind, ahead)
        finally:
            ahead.transport.abort()


async def _refuse(
    first: bytes, behind: asyncio.StreamReader, ahead: asyncio.StreamWriter, writer: asyncio.StreamWriter
) -> bool:
    """Lets a replica say what it thinks of something that does not begin like a request."""
    ahead.write(first)
    ahead.write_eof()
    writer.write(await behind.read())
    await writer.drain()
    return False


async def _converse(
    request: _Head,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    behind: asyncio.StreamReader,
    ahead: asyncio.StreamWriter,
) -> bool:
    """One request and its answer, both at once; says whether another may follow."""
    sending = asyncio.create_task(_send(request, reader, ahead))
    try:
        answer = await _answer(request, behind, writer)
        await asyncio.wait({sending}, timeout=_LINGER)
        if sending.done() and sending.exception() is None:
            return not (request.is_last or answer.is_last)
        return False
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


class _Head:
    """The head of a request or an answer: as it came, and what it says of the body."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        self.words = first.split(" ")
        named = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in named}
        self.is_chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self.length = int(headers["content-length"]) if "content-length" in headers else None
        self.is_last = headers.get("connection", "").lower() == "close"


async def _send(request: _Head, reader: asyncio.StreamReader, ahead: asyncio.StreamWriter) -> None:
    """Passes the request on. A client that goes away takes the connection to the replica along."""
    try:
        ahead.write(request.raw)
        await _copy_body(request, reader, ahead)
    except BaseException:
        ahead.transport.abort()
        raise


async def _answer(request: _Head, behind: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Head:
    """Passes the answer back, interim ones as well."""
    while True:
        answer = _Head(await behind.readuntil(_HEAD_END))
        writer.write(answer.raw)
        status = int(answer.words[1])
        if status >= 200:
            break
    if request.words[0] != "HEAD" and status not in (204, 304):
        await _copy_body(answer, behind, writer)
    await writer.drain()
    return answer


async def _copy_body(head: _Head, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    if not head.is_chunked:
        await _copy(head.length or 0, source, target)
        return
    size = -1
    while size:
        line = await source.readuntil(b"\r\n")
        target.write(line)
        size = int(line.partition(b";")[0], 16)
        await _copy(size + 2, source, target)  # the line break; no trailers


async def _copy(count: int, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while count:
        piece = await source.read(min(count, _PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(piece, count)
        target.write(piece)
        await target.drain()
        count -= len(piece)
