"""One request and its answer, between a connection and the ASGI app.

Law of bodies: a body is complete only when its last byte came by Content-Length or by the terminating chunk; a client
that goes away earlier makes ``receive`` say ``http.disconnect``, never an end (rule A14).
Law of answers: once the status line is out, the answer is completed or the connection is aborted. Sending to a client
that has gone raises, so that nobody reads gigabytes for an empty chair.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any, Protocol

__all__ = ["App", "ClientGone", "Exchange", "Message", "Scope", "last_answer"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

_log = logging.getLogger(__name__)
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_NO_BODY = frozenset((204, 304))
_JOINED = 64 * 1024
"""Bytes of a first piece of the body that are copied to go out with the head."""


class ClientGone(OSError):
    """The client has closed the connection before the answer was complete. Nobody's fault; not worth a log line."""


class Link(Protocol):
    """What an exchange needs of its connection."""

    loop: asyncio.AbstractEventLoop
    write_paused: bool

    @property
    def date_line(self) -> bytes:
        """The Date header of this second, with its line end."""

    def write(self, data: bytes) -> None:
        """Queues bytes for the client."""

    async def writable(self) -> None:
        """Waits until the client has taken most of what is queued, or has gone."""

    async def send_file(self, file: int, offset: int, count: int) -> None:
        """Has the kernel send bytes of a file, behind what is queued; ends early when the client has gone.

        Raises:
            OSError, EOFError: it cannot be completed.
        """

    def watch_body(self) -> None:
        """The client was told to send the body (100 Continue): from now on it may be too slow."""

    def body_taken(self) -> None:
        """The app took what was buffered of the body."""

    def answered(self, *, keep_alive: bool) -> None:
        """The answer is complete."""

    def abort(self) -> None:
        """Cuts the connection so that the client cannot mistake the answer for a whole one."""


def _status_line(status: int) -> bytes:
    """The first line of an answer, with its line end."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def last_answer(status: int, code: str, message: str, *, headers: bytes = b"", is_head: bool = False) -> bytes:
    """A whole answer that the app did not give, with the protocol's error document; the connection closes behind it.

    Args:
        message: ours, so it needs no escapes.
        headers: further lines, with their ends.
    """
    body = b'{"errors":[{"code":"%b","message":"%b","detail":null}]}' % (code.encode(), message.encode())
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return _status_line(status) + headers + head + (b"" if is_head else body)


class Exchange:
    """A request that is being answered. The connection feeds the body; the app reads it and sends the answer."""

    __slots__ = (
        "_chunked",
        "_chunks",
        "_head",
        "_is_head",
        "_link",
        "_remaining",
        "_until_close",
        "_waiter",
        "body_complete",
        "body_delivered",
        "buffered",
        "expects_continue",
        "finished",
        "gone",
        "keep_alive",
        "scope",
        "started",
    )

    def __init__(self, link: Link, scope: Scope, *, keep_alive: bool, expects_continue: bool) -> None:
        self._link = link
        self.scope = scope
        self.keep_alive = keep_alive
        self.expects_continue = expects_continue
        self.body_complete = self.body_delivered = False
        self.started = self.finished = self.gone = False
        self.buffered = 0
        self._chunks: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._is_head = scope["method"] == "HEAD"
        self._head = b""
        self._remaining = 0
        self._chunked = self._until_close = False

    async def run(self, app: App) -> None:
        """Lets the app answer, and sees to it that the connection is whole or cut afterwards."""
        try:
            await app(self.scope, self.receive, self.send)
        except ClientGone:
            self._fail()
        except asyncio.CancelledError:
            self._link.abort()
            raise
        except Exception:  # noqa: BLE001  # the last border: the client gets a 500 or a cut, the operator the traceback
            _log.exception("the application failed: %s", self._name())
            self._fail()
        else:
            if not self.finished and not self.gone:
                _log.error("the application did not answer: %s", self._name())
                self._fail()

    def _name(self) -> str:
        # The raw path, because a decoded one could hold line breaks.
        return f"{self.scope['method']} {self.scope['raw_path'][:256].decode('latin-1')}"

    def _fail(self) -> None:
        if self.gone or self.finished:
            return
        if self.started:
            self._link.abort()
            return
        self._link.write(last_answer(500, "UNKNOWN", "internal error", is_head=self._is_head))
        self.started = True
        self._finish(keep_alive=False)

    # -- the body, from the connection ---------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Takes bytes of the body; drops them once the answer is complete."""
        if not self.finished:
            self._chunks.append(data)
            self.buffered += len(data)
            self._wake()

    def feed_end(self) -> None:
        """The body is complete."""
        self.body_complete = True
        self._wake()

    def lose(self) -> None:
        """The client has gone."""
        self.gone = True
        self._wake()

    def spoil(self) -> None:
        """The body turned out to be wrong: nobody will see its end."""
        self._chunks.clear()
        self.body_complete = False
        self.lose()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- ASGI ----------------------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """ASGI: the next part of the body, or ``http.disconnect``."""
        while True:
            if self.finished:
                return {"type": "http.disconnect"}
            if self._chunks or (self.body_complete and not self.body_delivered):
                return self._take()
            if self.gone:
                return {"type": "http.disconnect"}
            if self.expects_continue:
                self.expects_continue = False
                if not self.started:  # RFC 9110 10.1.1: after the final status has begun there is nothing to continue
                    self._link.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    self._link.watch_body()
            self._waiter = self._link.loop.create_future()
            await self._waiter

    def _take(self) -> Message:
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.buffered = 0
        self.body_delivered = self.body_complete
        if not self.body_complete:
            self._link.body_taken()
        return {"type": "http.request", "body": body, "more_body": not self.body_complete}

    async def send(self, message: Message) -> None:
        """ASGI: a part of the answer.

        Raises:
            ClientGone: nobody is there to take it.
            RuntimeError: the app broke the protocol.
        """
        if self._link.write_paused:
            await self._link.writable()
        if self.gone:
            raise ClientGone("the client has gone")
        if not self.started:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"expected http.response.start, got {message['type']}")
            self._start(message["status"], message["headers"])
        elif self.finished:
            raise RuntimeError(f"{message['type']} after the end of the answer")
        elif message["type"] == "http.response.zerocopysend":
            await self._send_file(message)
        else:
            self._continue(message.get("body", b""), more=message.get("more_body", False))

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        parts = [_status_line(status), self._link.date_line]
        count, length = 3, None
        for name, value in headers:
            parts += name, b": ", value, b"\r\n"
            count += 1
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and value == b"close":
                self.keep_alive = False
        if length is not None:
            self._remaining = 0 if self._is_head else length
        elif status not in _NO_BODY and not self._is_head:
            if self.scope["http_version"] == "1.1":
                self._chunked = True
                parts.append(b"transfer-encoding: chunked\r\n")
                count += 1
            else:
                self._until_close = True  # HTTP/1.0 knows no chunks: the end of the connection is the end of the answer
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
            count += 1
        parts.append(b"\r\n")
        head = b"".join(parts)
        if head.count(b"\n") != count or head.count(b"\r") != count or b"\0" in head:
            raise RuntimeError("a header value holds a line break")  # rule A21, behind the app's own checks
        self.started = True
        self._head = head

    def _continue(self, body: bytes, *, more: bool) -> None:
        if self._is_head:
            self._write(b"")
        elif self._chunked:
            end = b"" if more else b"0\r\n\r\n"
            self._write(b"%x\r\n%b\r\n%b" % (len(body), body, end) if body else end)
        elif self._until_close:
            self._write(body)
        elif len(body) > self._remaining:
            raise RuntimeError("the answer is longer than its Content-Length")
        else:
            self._remaining -= len(body)
            self._write(body)
        if not more:
            self._end()

    def _write(self, data: bytes) -> None:
        """Queues bytes, together with the head if that still waits for them: a call of the kernel costs 8 µs."""
        if self._head:
            head, self._head = self._head, b""
            if len(data) > _JOINED:
                self._link.write(head)
            else:
                data = head + data
        if data:
            self._link.write(data)

    async def _send_file(self, message: Message) -> None:
        count = message["count"]
        if self._is_head or self._chunked or self._until_close or count > self._remaining:
            raise RuntimeError("a file needs an answer with a Content-Length that has room for it")
        self._write(b"")
        try:
            await self._link.send_file(message["file"].fileno(), message["offset"], count)
        except ConnectionError as exc:
            raise ClientGone("the client has gone") from exc
        if self.gone:
            raise ClientGone("the client has gone")
        self._remaining -= count
        if not message.get("more_body", False):
            self._end()

    def _end(self) -> None:
        if self._remaining:
            raise RuntimeError("the answer is shorter than its Content-Length")
        self._finish(keep_alive=self.keep_alive)

    def _finish(self, *, keep_alive: bool) -> None:
        self.finished = True
        self._chunks.clear()
        self.buffered = 0  # or the rest of the body would find the buffer full, and never be read
        self._wake()
        self._link.answered(keep_alive=keep_alive)
