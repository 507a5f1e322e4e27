"""A server that answers as a test says, and remembers what it was asked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.servers import serving

__all__ = ["Reply", "Scripted", "Seen", "scripted"]


@dataclass(frozen=True)
class Seen:
    """A request as it arrived. ``target``: path and query; header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """An answer. ``repeat``: the body that often; ``cut``: breaks the connection after the body."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    repeat: int = 1
    cut: bool = False


class BrokenOff(Exception):
    """Ends a connection in the middle of an answer."""


@dataclass
class Scripted:
    """The server: where it is, what it was asked, what it answers."""

    answer: Callable[[Seen], Reply]
    url: str = ""
    seen: list[Seen] = field(default_factory=list)

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``."""
        return self.url.removeprefix("http://")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI app."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        query = scope["query_string"].decode()
        target = scope["raw_path"].decode() + ("?" + query if query else "")
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        self.seen.append(Seen(scope["method"], target, headers, bytes(body)))
        await self._send(self.answer(self.seen[-1]), send)

    async def _send(self, reply: Reply, send: Any) -> None:
        headers = {"content-length": str(len(reply.body) * reply.repeat), **reply.headers}
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items() if value]
        await send({"type": "http.response.start", "status": reply.status, "headers": raw})
        for _ in range(reply.repeat):
            await send({"type": "http.response.body", "body": reply.body, "more_body": True})
        if reply.cut:
            raise BrokenOff
        await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def scripted(answer: Callable[[Seen], Reply]) -> AsyncIterator[Scripted]:
    """The server, running."""
    script = Scripted(answer)
    async with serving(script) as url:
        script.url = url
        yield script
