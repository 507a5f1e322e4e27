"""Answers that are given before the body was read: clients that send on all the same find the connection in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.servers import serving

_MIB = 1024 * 1024


async def _refuses_late(scope: Any, receive: Any, send: Any) -> None:
    """Says no without reading, when a good part of the body is here already."""
    await asyncio.sleep(0.2)
    await send({"type": "http.response.start", "status": 416, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("size", [1, _MIB, 12 * _MIB])
async def test_the_next_request_is_answered(size: int) -> None:
    """The rest of a body that was refused is read for nothing, however much of it was waiting: Go's client sends it
    to its end and then uses the connection again."""
    async with serving(_refuses_late) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        request = b"PATCH / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
        for _ in range(2):
            writer.write(request + bytes(size))
            async with asyncio.timeout(60):
                await writer.drain()
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 416 ")
        writer.close()
        await writer.wait_closed()
