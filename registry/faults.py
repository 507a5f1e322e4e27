"""Faults on purpose: what a registry, a proxy or a network does to clients on a bad day, as values.

Law: a fault changes one answer on the way out (``DropUpload``: one request on the way in); the registry behind it does
its work and knows nothing of it. So a fault before a write is visible as one, and what was written stays written.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Corrupt",
    "Drop",
    "DropUpload",
    "Fault",
    "IgnoreRange",
    "Refuse",
    "Slow",
    "Stall",
    "answer_with",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_PIECE = 16 * 1024
_DELIVERY = 0.02  # seconds for what was sent to reach the client before the connection is cut
_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 404: "NOT_FOUND", 429: "TOOMANYREQUESTS", 503: "UNAVAILABLE"}


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answers with an error and asks the registry nothing. ``retry_after``: seconds, for the header."""

    status: int = 429
    retry_after: int | None = None
    message: str = "refused by the test"


@dataclass(frozen=True, slots=True)
class Drop:
    """Breaks the connection when ``after`` bytes of the answer's body were sent; None: before the status line."""

    after: int | None = None


@dataclass(frozen=True, slots=True)
class DropUpload:
    """Breaks the connection when at least ``after`` bytes of the request's body have reached the registry."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class Corrupt:
    """Flips the bits of the body's byte at offset ``at``, so the content no longer has its digest."""

    at: int = 0


@dataclass(frozen=True, slots=True)
class Slow:
    """Answers after ``delay`` seconds, and sends the body at ``rate`` bytes per second; None: as fast as it can."""

    delay: float = 0.0
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Stall:
    """Sends ``after`` bytes of the answer's body, and then nothing while the connection stays open."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class IgnoreRange:
    """Answers a range request with 200 and the whole, as some proxies do."""


Fault = Refuse | Drop | DropUpload | Corrupt | Slow | Stall | IgnoreRange


async def answer_with(fault: Fault, app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Lets ``app`` answer one request, with the fault."""
    scope["extensions"] = {}  # no sendfile: every byte of a body passes here
    match fault:
        case Refuse():
            await _refuse(fault, send)
        case Drop(after) if after is None:
            await _cut()
        case Drop(after):
            await app(scope, receive, _counting(send, after or 0, _cut))
        case DropUpload(after):
            await app(scope, _limited(receive, after), send)
        case Corrupt(at):
            await app(scope, receive, _flipping(send, at))
        case Slow(delay, rate):
            await asyncio.sleep(delay)
            await app(scope, receive, _throttled(send, rate) if rate else send)
        case Stall(after):
            await app(scope, receive, _counting(send, after, lambda: _hang(receive)))
        case IgnoreRange():
            scope["headers"] = [header for header in scope["headers"] if header[0] != b"range"]
            await app(scope, receive, send)


async def _refuse(fault: Refuse, send: Send) -> None:
    error = {"code": _CODES.get(fault.status, "UNKNOWN"), "message": fault.message, "detail": None}
    body = json.dumps({"errors": [error]}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if fault.retry_after is not None:
        headers.append((b"retry-after", b"%d" % fault.retry_after))
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _cut() -> None:
    """Ends the connection: the server aborts it when the task of its request is cancelled."""
    await asyncio.sleep(_DELIVERY)
    raise asyncio.CancelledError


async def _hang(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise asyncio.CancelledError


def _counting(send: Send, after: int, then: Callable[[], Awaitable[None]]) -> Send:
    """Sends the first ``after`` bytes of the body, and does ``then`` at the next one."""
    left = after

    async def limited(message: Message) -> None:
        nonlocal left
        body = message.get("body", b"")
        if len(body) <= left or message["type"] != "http.response.body":
            left -= len(body)
            await send(message)
            return
        for piece in (b"", *_pieces(bytes(body[:left]))):  # the empty one sends the head, where that waits for a body
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await then()

    return limited


def _limited(receive: Receive, after: int) -> Receive:
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        if taken >= after:
            await _cut()
        message = await receive()
        taken += len(message.get("body", b""))
        return message

    return limited


def _flipping(send: Send, at: int) -> Send:
    position = 0

    async def flipped(message: Message) -> None:
        nonlocal position
        body = bytearray(message.get("body", b""))
        if 0 <= at - position < len(body):
            body[at - position] ^= 0xFF
            message = {**message, "body": bytes(body)}
        position += len(body)
        await send(message)

    return flipped


def _throttled(send: Send, rate: float) -> Send:
    async def slow(message: Message) -> None:
        if message["type"] != "http.response.body":
            await send(message)
            return
        for piece in _pieces(bytes(message.get("body", b""))):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(len(piece) / rate)
        await send({**message, "body": b""})

    return slow


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]
