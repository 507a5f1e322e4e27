"""One request and its answer.

Law of headers: every value is built from checked values or passes ``header_value`` (rule A21); nothing is compressed.
Law of endings: an answer that has begun is finished to its announced length, or the connection breaks; it never ends
well by mistake. A request body is whole only when the protocol says so: a client that goes away raises ``ClientLeft``
(rule A14).
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from typing import Final

import msgspec
from moorage.registry.oci import (
    Digest,
    FileSpan,
    InFile,
    InternalError,
    OciError,
    SizeInvalid,
    TooManyRequests,
    Unavailable,
    Unsupported,
)
from starlette.types import Receive, Scope, Send

__all__ = ["Call", "ClientLeft", "Header", "digest_headers", "error_answer", "header_value", "json_body"]

Header = tuple[bytes, bytes]

JSON: Final[Header] = (b"content-type", b"application/json")
COMMON: Final[tuple[Header, ...]] = (
    (b"docker-distribution-api-version", b"registry/2.0"),
    (b"x-content-type-options", b"nosniff"),
)
RETRY_AFTER: Final = b"5"
"""Seconds after which a client may come back (429, 503)."""

_PIECE: Final = 8 << 20
"""Bytes of a file that are handed to the server at once; also what is counted as sent though the client left."""

_VISIBLE = re.compile(r"[\x21-\x7e]+")
_LENGTH = re.compile(r"[0-9]{1,19}")
_WITHOUT_LENGTH = frozenset({204, 304})

json_body = msgspec.json.Encoder().encode


class ClientLeft(Exception):
    """The client left before its request or its answer was complete: nobody is there to be answered.

    Not an ``OSError``: it passes through stores, which would take that for a fault of the disk.
    """


class Call:
    """One request as far as the handlers look at it, and the way to answer it.

    Attributes:
        started: the answer has begun; from here on failures break the connection.
        error_headers: headers that an error answer to this request carries as well.
    """

    __slots__ = ("_headers", "_receive", "_send", "_takes_files", "_was_read", "error_headers", "is_head", "started")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._headers: list[Header] = scope["headers"]
        self._receive = receive
        self._send = send
        self._was_read = False
        self._takes_files = "http.response.zerocopysend" in scope.get("extensions", ())
        self.is_head = scope["method"] == "HEAD"
        self.started = False
        self.error_headers: Sequence[Header] = ()

    def header(self, name: bytes) -> str | None:
        """The request header ``name`` (lower case), several lines joined as one list; None if absent."""
        values = [value for key, value in self._headers if key == name]
        return b", ".join(values).decode("latin-1") if values else None

    @property
    def content_length(self) -> int | None:
        """Bytes of the request body, 0 if there is none; None when it comes in chunks of unannounced length.

        Raises:
            SizeInvalid: the header is not a number.
        """
        raw = self.header(b"content-length")
        if raw is None:
            return None if self.header(b"transfer-encoding") else 0
        if _LENGTH.fullmatch(raw) is None:
            raise SizeInvalid("Content-Length is not a number", detail={"Content-Length": raw[:64]})
        return int(raw)

    def is_known(self, digest: Digest) -> bool:
        """Whether the client has this content already (If-None-Match, by weak comparison: RFC 9110 section 13.1.2)."""
        raw = self.header(b"if-none-match")
        if raw is None:
            return False
        tags = {tag.strip().removeprefix("W/") for tag in raw.split(",")}
        return f'"{digest}"' in tags or "*" in tags

    async def body(self) -> AsyncIterator[bytes]:
        """The request body as it arrives; ends only when it is whole.

        Raises:
            ClientLeft: the client left in the middle.
        """
        self._was_read = True
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            chunk, more = message.get("body", b""), message.get("more_body", False)
            if chunk:
                yield chunk

    async def reply(
        self, status: int, headers: Sequence[Header] = (), body: bytes = b"", *, length: int | None = None
    ) -> None:
        """Sends the whole answer. ``length``: bytes that a GET would bring, where this is the answer to a HEAD."""
        await self._start(status, headers, len(body) if length is None else length)
        await self._send({"type": "http.response.body", "body": b"" if self.is_head else body, "more_body": False})

    async def stream(
        self, status: int, headers: Sequence[Header], chunks: AsyncIterable[bytes], *, length: int
    ) -> None:
        """Sends exactly ``length`` bytes of ``chunks``. The answer begins when the first chunk is there.

        Raises:
            OSError: the client left (ASGI: the server says so when something is sent); nothing more is produced for it.
            InternalError: the chunks are more or fewer bytes than announced.
        """
        file = chunks.file() if self._takes_files and isinstance(chunks, InFile) else None
        if file is not None:
            await self._send_file(status, headers, file, length=length)
            return
        missing = length
        async for chunk in chunks:
            missing -= len(chunk)
            if missing < 0:
                raise InternalError("content is longer than announced")
            if not self.started:
                await self._start(status, headers, length)
            await self._send({"type": "http.response.body", "body": chunk, "more_body": missing > 0})
        if missing:
            raise InternalError("content is shorter than announced")
        if not self.started:
            await self.reply(status, headers)

    async def _send_file(self, status: int, headers: Sequence[Header], file: FileSpan, *, length: int) -> None:
        """Leaves the bytes to the server (ASGI's zero copy extension), a piece at a time: a client may leave."""
        if file.stop - file.start != length:
            raise InternalError("content has another size than announced")
        await self._start(status, headers, length)
        for offset in range(file.start, file.stop, _PIECE):
            count = min(_PIECE, file.stop - offset)
            more = offset + count < file.stop
            message = {"type": "http.response.zerocopysend", "file": file, "offset": offset, "count": count}
            await self._send({**message, "more_body": more})

    async def refuse(self, error: OciError) -> None:
        """Answers with an error."""
        status, headers, body = error_answer(error)
        # Without a 100 the client may skip its body; what comes next on this connection would be anybody's guess.
        if not self._was_read and self.header(b"expect"):
            headers = [*headers, (b"connection", b"close")]
        await self.reply(status, [*headers, *self.error_headers], body)

    async def _start(self, status: int, headers: Sequence[Header], length: int) -> None:
        if status in _WITHOUT_LENGTH:
            complete = [*COMMON, *headers]
        else:
            complete = [*COMMON, *headers, (b"content-length", b"%d" % length)]
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": complete})


def header_value(text: str) -> bytes:
    """``text`` as the value of a response header (rule A21).

    Raises:
        InternalError: it has characters that are not visible ASCII.
    """
    if _VISIBLE.fullmatch(text) is None:
        raise InternalError("a header value is not visible ASCII")
    return text.encode("ascii")


def digest_headers(digest: Digest) -> tuple[Header, Header]:
    """``Docker-Content-Digest`` and ``ETag`` of content."""
    text = str(digest).encode("ascii")
    return (b"docker-content-digest", text), (b"etag", b'"%b"' % text)


def error_answer(error: OciError) -> tuple[int, list[Header], bytes]:
    """Status, headers and body that say ``error``: the only place where errors become HTTP."""
    headers = [JSON]
    match error:
        case Unsupported():
            headers.append((b"allow", ", ".join(_allowed_methods(error)).encode("ascii")))
        case TooManyRequests(detail={"retryAfter": int(seconds)}):
            headers.append((b"retry-after", b"%d" % seconds))
        case TooManyRequests() | Unavailable():
            headers.append((b"retry-after", RETRY_AFTER))
    # Escaped to ASCII: a detail may quote text, of a client or of a registry behind us, that is no Unicode.
    return error.status, headers, json.dumps({"errors": [error.to_json()]}, separators=(",", ":")).encode("ascii")


def _allowed_methods(error: OciError) -> list[str]:
    """What the path takes: as the parser of routes says, else reading, which no switch turns off."""
    if isinstance(error.detail, dict) and "allow" in error.detail:
        return list(error.detail["allow"])
    return ["GET", "HEAD"]
