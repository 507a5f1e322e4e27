"""Clients that take their time: each phase of a connection has a deadline, and nobody honest is hurt (rule A13).

The deadlines are shortened to half a second; what matters is which phase ends, not when: a machine may be slow. Where a
client must be steady, a failure while the machine held it up counts for nothing, and the attempt is repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from moorage.registry.web import connections
from moorage.registry.web.head import REASONS
from moorage.registry.web.metrics import Table
from moorage.registry.web.protocol import Connection

from tests.servers import serving
from tests.steady import steadily

_BIG = 64 * 1024 * 1024
_GUARD = 60.0  # seconds after which something hangs, on the slowest of machines


class _Hasty(Connection):
    head_deadline = 0.5
    idle_deadline = 0.6
    body_window = 0.5
    body_rate = 1024
    write_stall = 0.5
    linger = 0.3


class _App:
    """``/big`` answers with much, ``/slow`` after a second; everything else when it has read the body."""

    def __init__(self) -> None:
        self.sent = self.received = 0
        self.outcome = ""
        self.over = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._answer(scope, receive, send)
            self.outcome = self.outcome or "answered"
        except OSError:
            self.outcome = "client gone"
            raise
        finally:
            self.over.set()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        size = _BIG if scope["path"] == "/big" else 2
        if scope["path"] == "/slow":
            await asyncio.sleep(1.2)
        more = True
        while more and scope["method"] == "POST":
            message = await receive()
            if message["type"] == "http.disconnect":
                self.outcome = "cut"
                return
            self.received += len(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        for position in range(0, size, 262144):
            part = min(262144, size - position)
            await send({"type": "http.response.body", "body": bytes(part), "more_body": position + part < size})
            self.sent += part


@pytest.fixture
def app() -> _App:
    return _App()


@pytest.fixture
async def connect(app: _App) -> AsyncIterator[Any]:
    """Opens a connection to a server of short deadlines."""
    async with _connecting(app, _Hasty) as connect:
        yield connect


@pytest.fixture
async def connect_at_leisure(app: _App) -> AsyncIterator[Any]:
    """Opens a connection to a server of the usual deadlines."""
    async with _connecting(app, Connection) as connect:
        yield connect


@contextlib.asynccontextmanager
async def _connecting(app: _App, connection: type[Connection], **options: Any) -> AsyncIterator[Any]:
    async with serving(app, connection=connection, **options) as url:
        host, port = url.removeprefix("http://").split(":")

        async def connect(*, receive_buffer: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            sock = socket.socket()
            sock.setblocking(False)
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
            return await asyncio.open_connection(sock=sock, limit=1024)

        yield connect


async def _until_closed(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    async with asyncio.timeout(_GUARD):
        try:
            while data := await reader.read(65536):
                answer += data
        except ConnectionResetError:
            pass
    return answer


@contextlib.asynccontextmanager
async def _trickling(writer: asyncio.StreamWriter, piece: bytes, seconds: float) -> AsyncIterator[None]:
    """Writes ``piece`` again and again, without end."""

    async def trickle() -> None:
        while True:
            writer.write(piece)
            await asyncio.sleep(seconds)

    task = asyncio.create_task(trickle())
    try:
        yield
    finally:
        task.cancel()
        writer.close()


async def test_a_silent_connection_is_closed(connect: Any) -> None:
    """Nothing said in time: closed without an answer, since nothing was asked."""
    began = time.monotonic()
    reader, writer = await connect()
    answer = await _until_closed(reader)
    writer.close()
    assert answer == b""
    assert time.monotonic() - began >= _Hasty.head_deadline


async def test_a_trickling_head_is_closed(connect: Any) -> None:
    """A head that comes byte by byte gets the deadline of the whole head, not one per byte."""
    began = time.monotonic()
    reader, writer = await connect()
    writer.write(b"GET /x HTTP/1.1\r\nHost: ")
    async with _trickling(writer, b"a", 0.05):
        assert (await _until_closed(reader)).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began >= _Hasty.head_deadline


async def test_empty_lines_do_not_buy_time(connect: Any) -> None:
    """Empty lines before a request are allowed, but they start the clock of its head."""
    reader, writer = await connect()
    async with _trickling(writer, b"\r\n", 0.05):
        await _until_closed(reader)


async def test_an_idle_connection_is_closed(connect: Any) -> None:
    """After an answer the next request has the idle deadline."""
    began = time.monotonic()
    reader, writer = await connect()
    writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await _until_closed(reader)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert time.monotonic() - began >= _Hasty.idle_deadline


async def test_a_second_head_has_its_deadline_too(connect: Any) -> None:
    """A kept connection whose next request stalls in its head gets 408."""
    reader, writer = await connect()
    writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y HT")
    answer = await _until_closed(reader)
    writer.close()
    assert answer.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 408 " in answer


@pytest.mark.parametrize("rate", [pytest.param(0, id="stalled"), pytest.param(20, id="20 B per 40 ms")])
async def test_a_body_below_the_rate_is_cut(connect: Any, app: _App, rate: int) -> None:
    """1 KiB/s averaged over a window is the least; below it the request is refused and never looks complete."""
    reader, writer = await connect()
    writer.write(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 10)
    async with _trickling(writer, b"x" * rate, 0.04):
        assert (await _until_closed(reader)).startswith(b"HTTP/1.1 408 ")
    assert app.outcome == "cut"


async def test_a_slow_but_steady_body_is_taken(connect: Any, app: _App) -> None:
    """Above the rate a body may take many windows."""

    async def attempt() -> None:
        reader, writer = await connect()
        with contextlib.closing(writer):
            app.received = 0
            writer.write(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\nConnection: close\r\n\r\n")
            for _ in range(60):
                writer.write(b"x" * 1000)
                await asyncio.sleep(0.03)
            assert (await _until_closed(reader)).startswith(b"HTTP/1.1 200 ")
            assert app.received == 60000

    await steadily(attempt)


async def test_waiting_for_the_app_is_not_the_clients_fault(connect: Any, app: _App) -> None:
    """A client that waits for 100 Continue, or whose body we do not read yet, is not slow."""
    head = b"POST /slow HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"

    async def attempt() -> None:
        reader, writer = await connect()
        with contextlib.closing(writer):
            app.received = 0
            writer.write(head)
            async with asyncio.timeout(_GUARD):
                assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"abcd")
            assert (await _until_closed(reader)).startswith(b"HTTP/1.1 200 ")
            assert app.received == 4

    await steadily(attempt)


async def test_a_reader_that_stalls_is_cut(connect: Any, app: _App) -> None:
    """Who asks for much and takes nothing loses the connection, and the app learns of it."""
    _, writer = await connect()
    writer.transport.pause_reading()
    writer.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.wait_for(app.over.wait(), _GUARD)
    writer.close()
    assert app.outcome == "client gone"
    assert app.sent < _BIG


async def test_a_slow_reader_is_served(connect: Any, app: _App) -> None:
    """Who takes little but steadily is served, although the kernel's buffer, which is megabytes, hides that from us.

    The client's own buffer is small, because a large one takes bytes in large steps (a sixteenth of it at a time).
    """

    async def attempt() -> None:
        reader, writer = await connect(receive_buffer=32768)
        app.outcome, taken = "", 0
        app.over.clear()
        try:
            writer.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            for _ in range(30):
                taken += len(await reader.read(16384))
                await asyncio.sleep(0.1)
            assert app.outcome == ""
            assert taken > 0
        finally:
            writer.transport.abort()
            await asyncio.wait_for(app.over.wait(), _GUARD)

    await steadily(attempt)


async def test_an_abandoned_download_stops(connect: Any, app: _App) -> None:
    """A client that leaves in the middle is not read for any longer."""
    _, writer = await connect()
    writer.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.sleep(0.1)
    writer.transport.abort()
    await asyncio.wait_for(app.over.wait(), _GUARD)
    assert app.outcome == "client gone"


async def test_a_half_closed_client_gets_its_answer(connect: Any) -> None:
    """A client that has said everything and closed its side is answered before the connection ends."""
    reader, writer = await connect()
    writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    writer.write_eof()
    answer = await _until_closed(reader)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_an_early_answer_survives_the_body(connect: Any) -> None:
    """A refusal sent while the body is still coming reaches the client: the connection is not reset under it."""
    reader, writer = await connect()
    writer.write(b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    for _ in range(20):
        writer.write(b"x" * 10000)
    answer = await _until_closed(reader)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_slow_clients_do_not_hurt_others(connect: Any) -> None:
    """With 300 stalled heads open a healthy request is answered, and in the end all of them are gone."""
    slow = [await connect() for _ in range(300)]
    for _, writer in slow:
        writer.write(b"GET /x HTTP/1.1\r\nHos")
    reader, writer = await connect()
    writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(_GUARD):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    for each, other in [*slow, (reader, writer)]:
        await _until_closed(each)
        other.close()


async def test_connections_beyond_the_cap_are_told_so(monkeypatch: pytest.MonkeyPatch, connect_at_leisure: Any) -> None:
    """Beyond the worker's cap a connection gets 503 and the end; below it all is as ever."""
    connect = connect_at_leisure
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    first, second = await connect(), await connect()
    third_reader, third = await connect()
    answer = await _until_closed(third_reader)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in answer
    for reader, writer in (first, second):
        writer.write(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await _until_closed(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()
    third.close()


async def test_connections_of_one_address_are_capped(monkeypatch: pytest.MonkeyPatch, connect_at_leisure: Any) -> None:
    """Beyond the cap of one address 429; loopback is exempt, so the test takes the exemption away."""
    connect = connect_at_leisure
    monkeypatch.setattr(connections, "MAX_CONNECTIONS_PER_ADDRESS", 1)
    (_, first), (exempt_reader, exempt) = await connect(), await connect()
    exempt.write(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (await _until_closed(exempt_reader)).startswith(b"HTTP/1.1 200 ")
    monkeypatch.setattr(connections, "LOOPBACK", ())
    reader, writer = await connect()
    assert (await _until_closed(reader)).startswith(b"HTTP/1.1 429 ")
    for each in (first, exempt, writer):
        each.close()


async def test_connections_of_a_trusted_proxy_are_not_capped(monkeypatch: pytest.MonkeyPatch, app: _App) -> None:
    """It brings the connections of everybody, who must not be refused together."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS_PER_ADDRESS", 1)
    monkeypatch.setattr(connections, "LOOPBACK", ())
    async with _connecting(app, Connection, is_proxy=lambda address: address == "127.0.0.1") as connect:
        (_, first), (reader, second) = await connect(), await connect()
        second.write(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await _until_closed(reader)).startswith(b"HTTP/1.1 200 ")
        for each in (first, second):
            each.close()


def test_every_reason_for_a_refusal_is_counted() -> None:
    """The meter knows every reason of the fixed set."""
    meter = Table(workers=1).meter(0)
    for reason in REASONS:
        meter.refused(reason)
