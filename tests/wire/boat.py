"""A blob, an index, and where they lie: what the tests of the web layer push and ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest_asyncio
from moorage.registry.oci import Digest, Manifest
from moorage.registry.oci.media_types import OCI_INDEX

__all__ = [
    "BLOB_URL",
    "DIGEST",
    "HULL",
    "INDEX",
    "MANIFEST_URL",
    "UPLOADS_URL",
    "chunks",
    "error_code",
    "exchange",
    "hull",
]

HULL = bytes(range(256)) * 8
DIGEST = Digest.of(HULL)
BLOB_URL = f"/v2/moored/boat/blobs/{DIGEST}"
UPLOADS_URL = "/v2/moored/boat/blobs/uploads/"
MANIFEST_URL = "/v2/moored/boat/manifests/latest"
INDEX = Manifest.of(b'{"schemaVersion":2,"manifests":[]}', OCI_INDEX)


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest_asyncio.fixture(loop_scope="session")
async def hull(wire: httpx.AsyncClient) -> Digest:
    """A blob of 2 KiB in the repository."""
    answer = await wire.post(f"{UPLOADS_URL}?digest={DIGEST}", content=HULL)
    assert answer.status_code == 201
    return DIGEST


def error_code(answer: httpx.Response) -> str:
    """The code of the one error in the answer, whose shape is checked on the way."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    (error,) = answer.json()["errors"]
    assert set(error) == {"code", "message", "detail"}
    return str(error["code"])


async def exchange(wire: httpx.AsyncClient, request: bytes, *, close: bool = False) -> bytes:
    """The head of what the server answers to raw bytes. ``close``: leave right after sending them."""
    reader, writer = await asyncio.open_connection(wire.base_url.host, wire.base_url.port)
    try:
        writer.write(request)
        await writer.drain()
        if close:
            return b""
        async with asyncio.timeout(60):
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
