"""Limits of the server (reliability figures 5.2) at one less, exactly, one more; and nothing stored by a refusal."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from moorage.registry.oci import MANIFEST_LIMIT, MAX_NAME, MAX_TAG, Digest, Manifest, Registry
from moorage.registry.oci.media_types import OCI_IMAGE, OCI_INDEX
from moorage.registry.web.ranges import select
from moorage.registry.web.uploads import UPLOAD_LIMIT

from tests.content import Content, blob, image, index, json_bytes, push_blobs, repository
from tests.hostile.conftest import Canary
from tests.stage import ON_STAGE
from tests.wire.talk import (
    NAME,
    assert_error,
    assert_session,
    in_chunks,
    put_manifest,
    raw_exchange,
    read_answer,
    start,
)

pytestmark = ON_STAGE

_HERE = repository(NAME)
_CONFIG = image("limits", layers=0).blobs[0]
_ENTRY = _CONFIG.descriptor.to_json()


def _document(size: int | None = None, **members: Any) -> Content:
    """An image manifest of exactly ``size`` bytes with these members."""
    document: Mapping[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": _ENTRY,
        "layers": [],
        **members,
    }
    content = json_bytes(document)
    if size is not None:
        padding = size - len(json_bytes({**document, "annotations": {"p": ""}}))
        content = json_bytes({**document, "annotations": {"p": "x" * padding}})
        assert len(content) == size
    return Content(Manifest.of(content, OCI_IMAGE), (_CONFIG,))


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
@pytest.mark.parametrize("excess", [-1, 0, 1])
async def test_manifest_of_4_mib(
    wire: httpx.AsyncClient, local: Registry, canary: Canary, excess: int, chunked: bool
) -> None:
    """Rule A1: 413 beyond, announced or not."""
    content = _document(MANIFEST_LIMIT + excess)
    await push_blobs(local, _HERE, content.blobs)
    before = canary()
    response = await wire.put(
        f"/v2/{NAME}/manifests/v1",
        content=in_chunks(content.manifest.content, 65536) if chunked else content.manifest.content,
        headers={"content-type": OCI_IMAGE},
    )
    if excess > 0:
        assert_error(response, 413, "MANIFEST_INVALID")
        assert canary() == before
    else:
        assert response.status_code == 201
        assert (await wire.get(f"/v2/{NAME}/manifests/v1")).content == content.manifest.content


async def test_a1_an_endless_manifest_is_not_read_to_its_end(url: str, canary: Canary) -> None:
    """Rule A1: the answer comes when the limit is passed, not when the client stops sending."""
    before = canary()
    split = urlsplit(url)
    reader, writer = await asyncio.open_connection(split.hostname, split.port)
    writer.write(f"PUT /v2/{NAME}/manifests/v1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    sent = 0
    answer = asyncio.ensure_future(read_answer(reader))
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    while not answer.done() and sent < 64 * 2**20:
        try:
            writer.write(piece)
            await writer.drain()
        except ConnectionError:
            break
        sent += 65536
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        assert (await answer).status == 413
    writer.close()
    assert sent < 32 * 2**20, "only what buffers between us and the server may hold"
    assert canary() == before


async def test_a1_an_announced_giant_is_refused_before_its_body(url: str) -> None:
    """Rule A1: Content-Length alone is enough."""
    head = f"PUT /v2/{NAME}/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: {2**62}\r\n\r\n"
    assert (await raw_exchange(url, head.encode())).status == 413


def _nested(depth: int) -> Content:
    """A manifest whose deepest value lies ``depth`` levels deep; the document itself is the first."""
    value: Any = 1
    for _ in range(depth - 1):
        value = [value]
    return _document(**{"org.example.deep": value})


@pytest.mark.parametrize("depth", [31, 32, 33, 5000])
async def test_a19_json_of_32_levels(wire: httpx.AsyncClient, local: Registry, canary: Canary, depth: int) -> None:
    """Rule A19: deeper is 400."""
    document = json.dumps(1)
    content = _nested(min(depth, 900))
    if depth > 900:
        raw = content.manifest.content.replace(b"[" * 899 + document.encode(), b"[" * (depth - 1) + document.encode())
        raw = raw.replace(b"1" + b"]" * 899, b"1" + b"]" * (depth - 1))
        content = Content(Manifest.of(raw, OCI_IMAGE), content.blobs)
    await push_blobs(local, _HERE, content.blobs)
    before = canary()
    response = await put_manifest(wire, content, "v1")
    if depth > 32:
        assert_error(response, 400, "MANIFEST_INVALID")
        assert canary() == before
    else:
        assert response.status_code == 201


@pytest.mark.parametrize(
    "bomb", [b"[" * 2**20, b'{"a":' * 2**18, b"[" + b"[]," * 2**20 + b"[]]"], ids=["[", "{", "flat"]
)
async def test_a19_a_json_bomb(wire: httpx.AsyncClient, canary: Canary, bomb: bytes) -> None:
    """Rule A19: a mebibyte of brackets is 400, soon."""
    before = canary()
    started = time.process_time()
    manifest = Manifest(OCI_IMAGE, bomb, Digest.of(bomb))
    assert_error(await put_manifest(wire, Content(manifest), "v1"), 400, "MANIFEST_INVALID")
    assert time.process_time() - started < 3
    assert canary() == before


@pytest.mark.parametrize("count", [999, 1000, 1001])
async def test_a17_descriptors_of_one_document(
    wire: httpx.AsyncClient, local: Registry, canary: Canary, count: int
) -> None:
    """Rule A17: a thousand layers."""
    content = _document(layers=[_ENTRY] * count)
    await push_blobs(local, _HERE, content.blobs)
    before = canary()
    response = await put_manifest(wire, content, "v1")
    if count > 1000:
        assert_error(response, 400, "MANIFEST_INVALID")
        assert canary() == before
    else:
        assert response.status_code == 201


async def test_a17_a_diamond_of_indexes_costs_linear_time(wire: httpx.AsyncClient, local: Registry) -> None:
    """Rule A17: twenty levels that double at each would be a million manifests if somebody walked them."""
    await push_blobs(local, _HERE, image("leaf").blobs)
    below = image("leaf")
    assert (await put_manifest(wire, below)).status_code == 201
    started = time.process_time()
    for _ in range(20):
        entries = [below.descriptor.to_json()] * 2
        raw = json_bytes({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
        below = Content(Manifest.of(raw, OCI_INDEX))
        assert (await put_manifest(wire, below, "top")).status_code == 201
    assert (await wire.delete(f"/v2/{NAME}/manifests/{below.digest}")).status_code == 202
    assert time.process_time() - started < 5


@pytest.mark.parametrize("length", [MAX_NAME - 1, MAX_NAME, MAX_NAME + 1])
async def test_names_of_255_characters(wire: httpx.AsyncClient, canary: Canary, length: int) -> None:
    """One long component, and many short ones; a longer name is 400."""
    item = blob("named")
    for name in ("n" * length, "/".join(["ab"] * 85) + "c" * (length - 254)):
        assert len(name) == length
        before = canary()
        response = await wire.post(f"/v2/{name}/blobs/uploads/?digest={item.digest}", content=item.content)
        if length > MAX_NAME:
            assert_error(response, 400, "NAME_INVALID")
            assert canary() == before
        else:
            assert response.status_code == 201
            assert (await wire.get(response.headers["location"])).content == item.content


@pytest.mark.parametrize("length", [MAX_TAG - 1, MAX_TAG, MAX_TAG + 1])
async def test_tags_of_128_characters(wire: httpx.AsyncClient, canary: Canary, length: int) -> None:
    """A longer one is 400, in the path and as a parameter."""
    for reference, query in (("t" * length, ""), (None, f"?tag={'t' * length}")):
        before = canary()
        response = await put_manifest(wire, image("there"), reference, query)
        if length > MAX_TAG:
            assert_error(response, 400, "TAG_INVALID")
            assert canary() == before
        else:
            assert response.status_code == 201
            assert "t" * length in (await wire.get(f"/v2/{NAME}/tags/list")).json()["tags"]


async def _ask(url: str, request: str) -> int:
    """The first status that a request with ``Expect: 100-continue`` gets; 100 means that its body is awaited."""
    split = urlsplit(url)
    reader, writer = await asyncio.open_connection(split.hostname, split.port)
    writer.write(f"{request}\r\nHost: x\r\nExpect: 100-continue\r\n\r\n".encode())
    try:
        async with asyncio.timeout(60):
            return int((await reader.readline()).split(b" ")[1])
    finally:
        writer.close()


@pytest.mark.parametrize("excess", [-1, 0, 1])
async def test_uploads_of_100_gib(url: str, wire: httpx.AsyncClient, excess: int) -> None:
    """By every announced size: 413 before a byte is sent, else the body is awaited."""
    length = UPLOAD_LIMIT + excess
    location = await start(wire)
    digest = blob("giant").digest
    for request in (
        f"POST /v2/{NAME}/blobs/uploads/?digest={digest} HTTP/1.1\r\nContent-Length: {length}",
        f"PATCH {location} HTTP/1.1\r\nContent-Length: {length}",
        f"PATCH {location} HTTP/1.1\r\nContent-Range: 0-{length - 1}\r\nContent-Length: {length}",
        f"PATCH {location} HTTP/1.1\r\nContent-Range: 0-{length - 1}\r\nTransfer-Encoding: chunked",
        f"PUT {location}?digest={digest} HTTP/1.1\r\nContent-Length: {length}",
    ):
        assert await _ask(url, request) == (413 if excess > 0 else 100), request
    assert_session(await wire.get(location), 204, None)


@pytest.mark.parametrize("header", ["bytes=" + "0-," * 21845, "bytes=" + "," * 65000, "bytes=" + "9" * 65000])
async def test_a10_a_giant_range_header_costs_nothing(header: str) -> None:
    """Rule A10: 64 KiB in well under 5 ms, whatever is in it."""
    started = time.process_time()
    for _ in range(20):
        select(header, 1000)
    assert (time.process_time() - started) / 20 < 0.005


async def test_many_chunks_are_one_upload(wire: httpx.AsyncClient) -> None:
    """A chunk may be of any size: a thousand of a few bytes are fine."""
    item = blob("crumbs", 3000)
    location = await start(wire)
    for first in range(0, 3000, 3):
        headers = {"content-range": f"{first}-{first + 2}"}
        response = await wire.patch(location, content=item.content[first : first + 3], headers=headers)
        location = assert_session(response, 202, first + 2)
    assert (await wire.put(f"{location}?digest={item.digest}")).status_code == 201


async def test_a_body_in_many_small_pieces_is_one_body(wire: httpx.AsyncClient) -> None:
    """HTTP chunks of one byte."""

    async def crumbs() -> AsyncIterator[bytes]:
        for place in range(len(item.content)):
            yield item.content[place : place + 1]

    item = blob("crumbs", 5000)
    response = await wire.post(f"/v2/{NAME}/blobs/uploads/?digest={item.digest}", content=crumbs())
    assert response.status_code == 201


async def test_an_index_of_a_thousand_children(wire: httpx.AsyncClient, local: Registry) -> None:
    """The same child a thousand times is one edge; pushing and deleting it is quick."""
    await push_blobs(local, _HERE, image("there").blobs)
    wide = index([image("there")] * 1000)
    started = time.process_time()
    assert (await put_manifest(wire, wide, "wide")).status_code == 201
    assert (await wire.delete(f"/v2/{NAME}/manifests/{wide.digest}")).status_code == 202
    assert time.process_time() - started < 5
