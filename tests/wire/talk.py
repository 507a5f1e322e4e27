"""Small pieces of HTTP conversation that many wire tests begin or end with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.content import Blob, Content

__all__ = [
    "NAME",
    "RawAnswer",
    "assert_error",
    "assert_session",
    "finish",
    "in_chunks",
    "put_manifest",
    "raw_exchange",
    "read_answer",
    "start",
]

NAME = "team/app"


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer as it came over a raw socket; header names in lower case, in order."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of this name."""
        return next((value for key, value in self.headers if key == name), None)


def assert_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is this error in the shape of the specification; returns its entry."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    (entry,) = response.json()["errors"]
    assert set(entry) == {"code", "message", "detail"}
    assert entry["code"] == code
    assert isinstance(entry["message"], str)
    assert entry["message"]
    return dict(entry)


def assert_session(response: httpx.Response, status: int, last: int | None) -> str:
    """The answer describes an upload session whose last byte is ``last``; returns its Location."""
    assert response.status_code == status, response.text
    location = response.headers["location"]
    assert location.startswith(f"/v2/{NAME}/blobs/uploads/"), "relative, so that it holds behind any proxy"
    assert response.headers["docker-upload-uuid"] in location
    assert response.headers["range"] == f"0-{last or 0}", "without bytes=, and never 0--1"
    return location


async def start(wire: httpx.AsyncClient, query: str = "") -> str:
    """Opens an upload session; returns its Location."""
    response = await wire.post(f"/v2/{NAME}/blobs/uploads/{query}", headers={"content-length": "0"})
    return assert_session(response, 202, None)


async def finish(
    wire: httpx.AsyncClient, location: str, item: Blob, content: bytes = b"", **headers: str
) -> httpx.Response:
    """Closes the session as ``item``."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    join = "&" if "?" in location else "?"
    return await wire.put(f"{location}{join}digest={item.digest}", content=content, headers=fields)


async def in_chunks(content: bytes, size: int = 100) -> AsyncIterator[bytes]:
    """``content`` for a request without Content-Length."""
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]


async def put_manifest(
    wire: httpx.AsyncClient, content: Content, reference: str | None = None, query: str = "", **headers: str
) -> httpx.Response:
    """Pushes the manifest alone, by digest unless ``reference`` says otherwise."""
    fields = {"content-type": content.manifest.media_type}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    path = f"/v2/{NAME}/manifests/{reference or content.digest}{query}"
    return await wire.put(path, content=content.manifest.content, headers=fields)


async def raw_exchange(url: str, request: bytes, *, method: str = "GET", end: bool = False) -> RawAnswer:
    """Sends exactly these bytes and reads one answer. ``end``: close our side after sending."""
    split = urlsplit(url)
    reader, writer = await asyncio.open_connection(split.hostname, split.port)
    try:
        writer.write(request)
        await writer.drain()
        if end:
            writer.write_eof()
        async with asyncio.timeout(60):
            return await read_answer(reader, method)
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader, method: str = "GET") -> RawAnswer:
    """The next answer of a connection; interim ones are skipped."""
    status = 100
    while 100 <= status < 200:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        status = int(first.split(" ")[1])
    pairs = (line.split(":", 1) for line in lines)
    headers = tuple((name.strip().lower(), value.strip()) for name, value in pairs)
    length = int(dict(headers).get("content-length", "0"))
    empty = method == "HEAD" or status in (204, 304)
    return RawAnswer(status, headers, b"" if empty else await reader.readexactly(length))
