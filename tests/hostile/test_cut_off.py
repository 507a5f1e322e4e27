"""Connections that end too early (rule A14): what was not whole is not committed, and what was kept can go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import pytest

from tests.content import blob, image
from tests.hostile.conftest import Canary
from tests.stage import ON_STAGE
from tests.wire.talk import NAME, assert_error, start

pytestmark = ON_STAGE

_BLOB = blob("cut off", 160_000)


async def _send_and_leave(url: str, head: str, body: bytes, *, politely: bool) -> None:
    """Sends a head and a part of its body, then closes: with FIN, or abruptly with RST."""
    split = urlsplit(url)
    _, writer = await asyncio.open_connection(split.hostname, split.port)
    writer.write(head.encode() + body)
    await writer.drain()
    if politely:
        writer.close()
    else:
        writer.transport.abort()


def _framed(target: str, method: str, framing: str, body: bytes, part: bytes) -> tuple[str, bytes]:
    """A request that announces ``body`` and carries ``part`` of it, by Content-Length or in HTTP chunks."""
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n"
    if framing == "length":
        return f"{head}Content-Length: {len(body)}\r\n\r\n", part
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (part[i : i + 9000] for i in range(0, len(part), 9000)))
    return f"{head}Transfer-Encoding: chunked\r\n\r\n", chunks


async def _eventually(holds: Callable[[], bool]) -> None:
    """Waits until the server has noticed."""
    for _ in range(6000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("still not so after a minute")


def _sixteenths(content: bytes) -> list[bytes]:
    """What has been sent when a request is cut at each sixteenth."""
    return [content[: len(content) * number // 16] for number in range(16)]


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("politely", [True, False], ids=["FIN", "RST"])
async def test_a_whole_blob_in_one_post(
    url: str, wire: httpx.AsyncClient, canary: Canary, framing: str, politely: bool
) -> None:
    """No blob, and no session that nobody knows of."""
    before = canary()
    target = f"/v2/{NAME}/blobs/uploads/?digest={_BLOB.digest}"
    for part in _sixteenths(_BLOB.content):
        await _send_and_leave(url, *_framed(target, "POST", framing, _BLOB.content, part), politely=politely)
        assert (await wire.head(f"/v2/{NAME}/blobs/{_BLOB.digest}")).status_code == 404
    await _eventually(lambda: canary() == before)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("politely", [True, False], ids=["FIN", "RST"])
async def test_a_chunk(url: str, wire: httpx.AsyncClient, framing: str, method: str, politely: bool) -> None:
    """Nothing is committed; what arrived is kept, and the upload goes on from there to the right blob."""
    for part in _sixteenths(_BLOB.content):
        await _cut_and_go_on(url, wire, framing=framing, method=method, part=part, politely=politely)
        assert (await wire.delete(f"/v2/{NAME}/blobs/{_BLOB.digest}")).status_code == 202


async def _cut_and_go_on(
    url: str, wire: httpx.AsyncClient, *, framing: str, method: str, part: bytes, politely: bool
) -> None:
    location = await start(wire)
    target = f"{location}?digest={_BLOB.digest}" if method == "PUT" else location
    await _send_and_leave(url, *_framed(target, method, framing, _BLOB.content, part), politely=politely)
    # The session may be busy until the server has noticed, and bytes in flight may be lost with a RST.
    offset = await _settled(wire, location)
    assert 0 <= offset <= len(part)
    assert (await wire.head(f"/v2/{NAME}/blobs/{_BLOB.digest}")).status_code == 404
    response = await _append_rest(wire, location, offset)
    assert response.status_code == 201, response.text
    assert (await wire.get(f"/v2/{NAME}/blobs/{_BLOB.digest}")).content == _BLOB.content


async def _settled(wire: httpx.AsyncClient, location: str) -> int:
    """How many bytes the session has, once that does not change any more."""
    offset, previous = -1, -2
    async with asyncio.timeout(60):
        while offset != previous:
            await asyncio.sleep(0.03)
            response = await wire.get(location)
            assert response.status_code == 204
            last = int(response.headers["range"].removeprefix("0-"))
            previous, offset = offset, last + 1 if last else 0
    return offset


async def _append_rest(wire: httpx.AsyncClient, location: str, offset: int) -> httpx.Response:
    """Closes the session with the rest, from wherever it stands by now."""
    for _ in range(5):
        headers = {"content-range": f"{offset}-{len(_BLOB.content) - 1}"}
        target = f"{location}?digest={_BLOB.digest}"
        response = await wire.put(target, content=_BLOB.content[offset:], headers=headers)
        if response.status_code != 416:
            break
        offset = await _settled(wire, location)
    return response


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_manifest(url: str, wire: httpx.AsyncClient, canary: Canary, framing: str) -> None:
    """No manifest and no tag; nothing at all changes."""
    before = canary()
    content = image("there").manifest.content
    target = f"/v2/{NAME}/manifests/cut"
    for number, part in enumerate(_sixteenths(content)):
        await _send_and_leave(url, *_framed(target, "PUT", framing, content, part), politely=bool(number % 2))
    await asyncio.sleep(0.1)
    assert_error(await wire.get(f"/v2/{NAME}/manifests/cut"), 404, "MANIFEST_UNKNOWN")
    assert canary() == before


async def test_a_body_that_ends_inside_a_chunk_header(url: str, wire: httpx.AsyncClient, canary: Canary) -> None:
    """Every place where chunked framing can break off: none of them is an end."""
    before = canary()
    target = f"/v2/{NAME}/blobs/uploads/?digest={_BLOB.digest}"
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = b"%x\r\n%b\r\n0\r\n\r\n" % (len(_BLOB.content), _BLOB.content)
    for missing in range(1, 8):
        await _send_and_leave(url, head, whole[:-missing], politely=True)
    await asyncio.sleep(0.05)
    assert (await wire.head(f"/v2/{NAME}/blobs/{_BLOB.digest}")).status_code == 404
    await _eventually(lambda: canary() == before)


async def test_a_reader_that_leaves_harms_nobody(url: str, wire: httpx.AsyncClient, canary: Canary) -> None:
    """Many clients close in the middle of a download; the next one gets everything."""
    await wire.post(f"/v2/{NAME}/blobs/uploads/?digest={_BLOB.digest}", content=_BLOB.content)
    before = canary()
    for politely in (True, False) * 10:
        head = f"GET /v2/{NAME}/blobs/{_BLOB.digest} HTTP/1.1\r\nHost: x\r\n\r\n"
        await _send_and_leave(url, head, b"", politely=politely)
    assert (await wire.get(f"/v2/{NAME}/blobs/{_BLOB.digest}")).content == _BLOB.content
    assert canary() == before
