"""An answer on its way out: how many times the connection is written to, because each call of the kernel costs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from moorage.registry.web.exchange import Exchange

_HEAD = b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: %d\r\n\r\n"


class Wire:
    """A connection that takes everything and remembers each write."""

    write_paused = False
    date_line = b"date: now\r\n"

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Remembers it."""
        self.writes.append(data)

    async def writable(self) -> None:
        """It always is."""

    async def send_file(self, file: int, offset: int, count: int) -> None:
        """Remembers what was asked for."""
        self.writes.append(b"file %d+%d" % (offset, count))

    def watch_body(self) -> None:
        """There is none."""

    def body_taken(self) -> None:
        """There is none."""

    def answered(self, *, keep_alive: bool) -> None:
        """Nothing follows."""

    def abort(self) -> None:
        """Remembers it."""
        self.writes.append(b"aborted")


async def writes_of(*messages: dict[str, Any], method: str = "GET", length: int = 0) -> list[bytes]:
    """What goes out for an answer of ``length`` bytes in these messages."""
    wire = Wire()
    scope = {"method": method, "http_version": "1.1", "raw_path": b"/"}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % length)]})
        for message in messages:
            await send({"type": "http.response.body", **message})

    await Exchange(wire, scope, keep_alive=True, expects_continue=False).run(app)
    return wire.writes


async def test_a_small_answer_is_one_write() -> None:
    """Head and body together."""
    assert await writes_of({"body": b"abc"}, length=3) == [_HEAD % 3 + b"abc"]


@pytest.mark.parametrize(("method", "length"), [("HEAD", 3), ("GET", 0)])
async def test_an_answer_without_body_is_one_write(method: str, length: int) -> None:
    """The head does not wait for a body that will not come."""
    assert await writes_of({"body": b""}, method=method, length=length) == [_HEAD % length]


@pytest.mark.parametrize(("size", "count"), [(65535, 1), (65536, 1), (65537, 2)])
async def test_a_big_first_piece_is_not_copied(size: int, count: int) -> None:
    """Beyond 64 KiB the copy would cost more than the call."""
    writes = await writes_of({"body": bytes(size)}, length=size)
    assert (b"".join(writes), len(writes)) == (_HEAD % size + bytes(size), count)


async def test_a_stream_begins_with_its_first_piece() -> None:
    """An empty piece sends the head ahead; every later piece goes as it comes."""
    pieces = ({"body": b"", "more_body": True}, {"body": b"a", "more_body": True}, {"body": b"b"})
    assert await writes_of(*pieces, length=2) == [_HEAD % 2, b"a", b"b"]
    assert await writes_of(*pieces[1:], length=2) == [_HEAD % 2 + b"a", b"b"]


async def test_the_head_goes_before_a_file() -> None:
    """Which the kernel sends by another way."""

    class File:
        def fileno(self) -> int:
            return 5

    message = {"type": "http.response.zerocopysend", "file": File(), "offset": 7, "count": 9}
    assert await writes_of(message, length=9) == [_HEAD % 9, b"file 7+9"]


async def test_an_answer_that_is_too_short_is_cut() -> None:
    """Nothing that could be taken for a whole one."""
    assert (await writes_of({"body": b"ab"}, length=3))[-1] == b"aborted"
