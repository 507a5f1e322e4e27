"""Big blobs out of a directory are sent by the kernel (ASGI's zero copy extension), and nothing else changes.

Law: the same bytes, in the same order, to slow clients and leaving ones; no descriptor stays open.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from moorage.registry.oci import Descriptor, Digest, RepositoryName
from moorage.registry.store import LocalRegistry
from moorage.registry.web.app import create_app
from moorage.registry.web.protocol import Connection
from moorage.registry.web.sendfile import FileSender
from moorage.storage_backends.filesystem import FilesystemStore

from tests.servers import serving
from tests.steady import steadily

_SIZE = 24 << 20
_CONTENT = random.Random(7).randbytes(_SIZE)
_DIGEST = Digest.of(_CONTENT)
_TARGET = f"/v2/a/blobs/{_DIGEST}"


class _Hasty(Connection):
    write_stall = 0.5


@dataclass
class _Served:
    """A server over a directory with one big blob; ``types``: what its app sent, ``root``: the directory."""

    url: str
    root: Path
    types: list[str] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)


async def _whole() -> AsyncIterator[bytes]:
    yield _CONTENT


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[_Served]:
    store = await FilesystemStore.open(tmp_path / "root")
    registry = await LocalRegistry.open(store)
    await registry.push_blob(RepositoryName("a"), Descriptor("application/octet-stream", _DIGEST, _SIZE), _whole())
    app, types = create_app(registry), list[str]()

    async def spied(scope: Any, receive: Any, send: Any) -> None:
        def note(message: Any) -> Any:
            types.append(message["type"])
            return send(message)

        await app(scope, receive, note)

    async with serving(spied, connection=_Hasty) as url:
        yield _Served(url, tmp_path / "root", types)
    await store.close()


async def test_whole_blob_by_the_kernel(served: _Served) -> None:
    """A big blob arrives as it is, and not a byte of it passed through the app."""
    async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
        answer = await client.get(_TARGET)
    assert hashlib.sha256(answer.content).hexdigest() == _DIGEST.hex
    assert set(served.types) == {"http.response.start", "http.response.zerocopysend"}


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        pytest.param(0, 1 << 20, id="the beginning"),
        pytest.param(12345, 20 << 20, id="the middle, more than a piece"),
        pytest.param(_SIZE - (1 << 20), _SIZE, id="the end"),
    ],
)
async def test_ranges_by_the_kernel(served: _Served, start: int, stop: int) -> None:
    """A big range is sent likewise, and is that range."""
    async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
        answer = await client.get(_TARGET, headers={"range": f"bytes={start}-{stop - 1}"})
    assert answer.status_code == 206
    assert answer.content == _CONTENT[start:stop]
    assert "http.response.zerocopysend" in served.types


async def test_small_ranges_by_the_app(served: _Served) -> None:
    """What is small is read and sent with the head: that is cheaper."""
    async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
        answer = await client.get(_TARGET, headers={"range": "bytes=100-199"})
    assert answer.content == _CONTENT[100:200]
    assert "http.response.zerocopysend" not in served.types


async def test_answers_keep_their_order(served: _Served) -> None:
    """Pipelined small and big answers on one connection: none overtakes another."""
    small = f"GET {_TARGET} HTTP/1.1\r\nHost: a\r\nRange: bytes=0-9\r\n\r\n".encode()
    big = f"GET {_TARGET} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection(*served.address)
    writer.write(small + big + small + big + small)
    for length in (10, _SIZE, 10, _SIZE, 10):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % length in head
        assert await reader.readexactly(length) == _CONTENT[:length]
    writer.close()


class _Always:
    """A connection whose client takes everything at once."""

    def __init__(self, sock: socket.socket) -> None:
        self.loop = asyncio.get_running_loop()
        self._sock = sock

    def pause_writing(self) -> None:
        raise AssertionError("there is always room")

    resume_writing = pause_writing

    async def writable(self) -> None:
        """At once."""

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self._sock

    def set_write_buffer_limits(self, high: int | None = None) -> None:
        """There is no buffer."""

    def is_closing(self) -> bool:
        return False


async def test_quick_client_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    """Between two pieces others run, though the socket would take the next piece at once."""
    (tmp_path / "file").write_bytes(bytes(1000))
    near, far = socket.socketpair()
    near.setblocking(False)
    others: list[str] = []
    with near, far, (tmp_path / "file").open("rb") as file:
        connection = _Always(near)
        sender = FileSender(connection, cast(asyncio.Transport, connection))
        connection.loop.call_soon(others.append, "ran")
        assert [sent async for sent in sender.send(file.fileno(), 0, 1000)] == [1000]
        sender.close()
    assert others == ["ran"]


async def test_slow_client_gets_everything(served: _Served) -> None:
    """A client that takes longer than the stall deadline, but goes on taking, is served to the end."""

    async def attempt() -> None:
        loop, hasher, missing = asyncio.get_running_loop(), hashlib.sha256(), _SIZE
        with await _connect(served, receive_buffer=64 * 1024) as sock:
            while missing:
                data = await loop.sock_recv(sock, 512 * 1024)
                assert data
                hasher.update(data)
                missing -= len(data)
                await asyncio.sleep(0.01)
        assert hasher.hexdigest() == _DIGEST.hex

    await steadily(attempt)


async def test_client_that_takes_nothing_is_cut(served: _Served) -> None:
    """The stall deadline holds while the kernel sends."""
    before = _descriptors()
    sock = await _connect(served, receive_buffer=64 * 1024)
    await asyncio.sleep(1.5)
    received = await _drain(sock)
    assert received < _SIZE
    await _until_closed(before)


async def test_client_that_leaves_costs_no_descriptor(served: _Served) -> None:
    """The file and the connection are given back when the client goes away in the middle."""
    before = _descriptors()
    for _ in range(5):
        sock = await _connect(served, receive_buffer=64 * 1024)
        assert await asyncio.get_running_loop().sock_recv(sock, 1000)
        sock.close()
    await _until_closed(before)


async def test_file_that_shrank_breaks_the_connection(served: _Served) -> None:
    """Bytes that are no longer there cannot be sent: the answer is cut, never ended well."""
    (path,) = (path for path in (served.root / "data").rglob("*") if path.is_file() and path.stat().st_size == _SIZE)
    sock = await _connect(served, receive_buffer=64 * 1024)
    assert await asyncio.get_running_loop().sock_recv(sock, 1000)
    os.truncate(path, 16 << 20)
    assert await _drain(sock) < _SIZE


async def _connect(served: _Served, *, receive_buffer: int) -> socket.socket:
    """A connection that has asked for the blob and read the head of the answer."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, served.address)
    await loop.sock_sendall(sock, f"GET {_TARGET} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await loop.sock_recv(sock, 1)
    return sock


async def _drain(sock: socket.socket) -> int:
    """Reads until the connection ends; how many bytes came."""
    loop, received = asyncio.get_running_loop(), 0
    try:
        async with asyncio.timeout(60):
            while data := await loop.sock_recv(sock, 1 << 20):
                received += len(data)
    except ConnectionError:
        pass  # a reset cuts as well as an end does
    sock.close()
    return received


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def _until_closed(before: int) -> None:
    async with asyncio.timeout(60):
        while _descriptors() > before:  # noqa: ASYNC110  # descriptors send no events
            await asyncio.sleep(0.02)
