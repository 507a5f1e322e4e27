"""GETs of blobs that are sent on to the store, on the wire: which are, which never, and what the answer says.

The store's own side of it is shown on real servers, in ``tests/s3``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import pytest_asyncio
from moorage.registry.oci import Registry
from moorage.registry.store import LocalRegistry
from moorage.registry.web.app import create_app

from tests.addressed import ADDRESS, AddressedStore
from tests.content import blob, empty_blob, image, push, push_blobs, repository
from tests.stage import ON_STAGE, Stage, bare_client
from tests.wire.talk import NAME, assert_error

pytestmark = ON_STAGE

_HERE = repository(NAME)
_BLOB = blob("redirected", 2048)
_PATH = f"/v2/{NAME}/blobs/{_BLOB.digest}"
_ETAG = f'"{_BLOB.digest}"'


@pytest_asyncio.fixture(loop_scope="session")
async def local() -> AsyncIterator[Registry]:
    """A core whose store has an address."""
    store = AddressedStore()
    registry = await LocalRegistry.open(store)
    await push_blobs(registry, _HERE, [_BLOB, empty_blob()])
    yield registry
    await store.close()


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="whole"),
        pytest.param({"range": "bytes=10-19"}, id="one range"),
        pytest.param({"range": "bytes=0-"}, id="containerd"),
        pytest.param({"range": "bytes=-5"}, id="suffix"),
        pytest.param({"range": "bytes=2047-9999"}, id="cut at the end"),
        pytest.param({"if-none-match": '"sha256:other"'}, id="another is known"),
    ],
)
async def test_a_blob_is_fetched_from_the_store(wire: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """307 with the digest that the client checks, the URL for ten minutes, type and disposition pinned in it (rule
    A20); no body, and nothing that a cache may keep."""
    answer = await wire.get(_PATH, headers=headers)
    assert answer.status_code == 307
    assert (answer.content, answer.headers["content-length"]) == (b"", "0")
    assert answer.headers["docker-content-digest"] == str(_BLOB.digest)
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers
    place = urlsplit(answer.headers["location"])
    assert f"{place.scheme}://{place.netloc}{place.path}".startswith(f"{ADDRESS}/data/")
    asked = {name: value for name, (value,) in parse_qs(place.query).items()}
    assert asked == {
        "expires": "600",
        "response-content-type": "application/octet-stream",
        "response-content-disposition": "attachment",
        "signature": "secret",
    }


@pytest.mark.parametrize(
    ("headers", "status", "content"),
    [
        pytest.param({"range": "bytes=0-1,5-6"}, 206, None, id="several ranges: zstd:chunked"),
        pytest.param({"range": "bytes=,0-1"}, 206, _BLOB.content[:2], id="a list of one"),
        pytest.param({"range": "BYTES=0-1"}, 206, _BLOB.content[:2], id="a unit in capitals"),
        pytest.param({"range": "lines=0-1"}, 200, _BLOB.content, id="another unit"),
        pytest.param({"range": f"bytes=0-{'9' * 30}"}, 206, _BLOB.content, id="a number beyond 64 bits"),
        pytest.param({"range": "bytes=0-1", "if-range": _ETAG}, 206, _BLOB.content[:2], id="if-range holds"),
        pytest.param({"range": "bytes=0-1", "if-range": '"other"'}, 200, _BLOB.content, id="if-range does not"),
        pytest.param({"if-match": _ETAG}, 200, _BLOB.content, id="if-match"),
        pytest.param({"if-none-match": _ETAG}, 304, b"", id="known"),
    ],
)
async def test_what_the_store_would_answer_otherwise_is_served_here(
    wire: httpx.AsyncClient, headers: dict[str, str], status: int, content: bytes | None
) -> None:
    """S3 servers know one range, and an ETag of their own."""
    answer = await wire.get(_PATH, headers=headers)
    assert answer.status_code == status
    if content is None:
        assert answer.headers["content-type"].startswith("multipart/byteranges")
    else:
        assert answer.content == content
    assert answer.headers["etag"] == _ETAG


@pytest.mark.parametrize("wanted", ["bytes=2048-", "bytes=9-5", "bytes=-0"])
async def test_a_range_beyond_the_end_is_refused_here(wire: httpx.AsyncClient, wanted: str) -> None:
    """In the shape of the specification, not in S3's."""
    answer = await wire.get(_PATH, headers={"range": wanted})
    assert_error(answer, 416, "RANGE_INVALID")
    assert answer.headers["content-range"] == "bytes */2048"


async def test_a_range_of_nothing_is_served_here(wire: httpx.AsyncClient) -> None:
    """S3 servers answer 416 to any range of an empty object; without a range they do well."""
    path = f"/v2/{NAME}/blobs/{empty_blob().digest}"
    assert (await wire.get(path, headers={"range": "bytes=0-"})).status_code == 200
    assert (await wire.get(path)).status_code == 307


async def test_head_is_answered_here(wire: httpx.AsyncClient) -> None:
    """With everything about the blob: the URL is signed for GET and nothing else."""
    answer = await wire.head(_PATH)
    assert (answer.status_code, answer.headers["content-length"], answer.headers["etag"]) == (200, "2048", _ETAG)


async def test_nobody_is_sent_to_what_is_not_there(wire: httpx.AsyncClient) -> None:
    """Absent here, or there only in another repository (rule T7): 404, whatever else was asked."""
    for path in (f"/v2/{NAME}/blobs/{blob('absent').digest}", f"/v2/no/where/blobs/{_BLOB.digest}"):
        for headers in ({}, {"range": "bytes=0-1"}, {"if-none-match": "*"}):
            assert_error(await wire.get(path, headers=headers), 404, "BLOB_UNKNOWN")


async def test_manifests_are_never_sent_on(wire: httpx.AsyncClient, local: Registry) -> None:
    """They are small, and hashed on every read."""
    await push(local, _HERE, image(), "tag")
    assert (await wire.get(f"/v2/{NAME}/manifests/tag")).status_code == 200


async def test_switched_off(stage: Stage) -> None:
    """Everything passes through us."""
    store = AddressedStore()
    registry = await LocalRegistry.open(store, redirect=False)
    await push_blobs(registry, _HERE, [_BLOB])
    stage.show(create_app(registry))
    async with bare_client(stage.url) as client:
        answer = await client.get(_PATH)
    assert (answer.status_code, answer.content) == (200, _BLOB.content)
