"""The balancer of the tests over replicas: what it does to requests, and what it must not do."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.roundrobin import RoundRobin
from tests.servers import serving


class _Echo:
    """Answers with its name and what it was sent; ``left`` is set when a client went away in the middle."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.left = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.set()
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        content = self.name.encode() + b" " + body
        headers = [(b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})


@pytest.fixture
async def echoes() -> AsyncIterator[tuple[RoundRobin, list[_Echo]]]:
    """A balancer in front of two servers."""
    apps = [_Echo("one"), _Echo("two")]
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serving(app)) for app in apps]
        with RoundRobin(urls) as balancer:
            yield balancer, apps


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_every_request_meets_another_replica(echoes: tuple[RoundRobin, list[_Echo]]) -> None:
    """On one connection or on several, whatever the method; bodies pass whole, with a length or in chunks."""
    balancer, _ = echoes
    large = bytes(range(256)) * 8192
    async with httpx.AsyncClient(base_url=balancer.url, trust_env=False, timeout=60) as client:
        assert (await client.get("/")).content == b"one "
        assert (await client.put("/", content=large)).content == b"two " + large
        assert (await client.patch("/", content=_pieces(b"a", b"", large))).content == b"one a" + large
        assert (await client.head("/")).headers["content-length"] == "4"
    async with httpx.AsyncClient(base_url=balancer.url, trust_env=False, timeout=60) as client:
        assert (await client.get("/")).content == b"one "
    assert sorted(balancer.sent.values()) == [2, 3]


async def test_a_client_that_leaves_is_seen_to_leave(echoes: tuple[RoundRobin, list[_Echo]]) -> None:
    """The replica learns of it, as without a balancer."""
    balancer, (one, _) = echoes
    place = urlsplit(balancer.url)
    _, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\npart")
    await writer.drain()
    writer.close()
    async with asyncio.timeout(60):
        await one.left.wait()


def test_a_client_that_leaves_before_its_answer() -> None:
    """What is under way for it is not left to the garbage collector, which would end it with a complaint."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        with RoundRobin([f"http://127.0.0.1:{silent.getsockname()[1]}"]) as balancer:
            place = urlsplit(balancer.url)
            with socket.create_connection((place.hostname, place.port), timeout=60) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                behind, _ = silent.accept()
                assert behind.recv(1000).startswith(b"GET ")
            for _ in range(20):
                gc.collect()
                with pytest.raises(BlockingIOError):
                    behind.recv(1, socket.MSG_DONTWAIT)  # the balancer still holds it
                time.sleep(0.01)
        behind.close()


async def test_what_is_no_request_is_answered_by_a_replica(echoes: tuple[RoundRobin, list[_Echo]]) -> None:
    """A client that tries TLS first learns at once that this is none."""
    balancer, _ = echoes
    place = urlsplit(balancer.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(b"\x16\x03\x01\x00\xc8" + bytes(200))
    async with asyncio.timeout(60):
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()
