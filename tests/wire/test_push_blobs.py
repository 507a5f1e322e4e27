"""Pushing blobs over the wire: every method, every algorithm, every way to get it wrong (spec "Pushing blobs")."""

from __future__ import annotations

import httpx
import pytest
from moorage.registry.oci import BlobUnknown, Registry

from tests.content import Blob, blob, empty_blob, push_blobs, read_bytes, repository
from tests.stage import ON_STAGE
from tests.wire.talk import NAME, assert_error, assert_session, finish, in_chunks, start

pytestmark = ON_STAGE

_HERE, _THERE = repository(NAME), repository("team/other")
_UPLOADS = f"/v2/{NAME}/blobs/uploads/"
_ITEMS = [
    pytest.param(blob("small", 512), id="sha256"),
    pytest.param(blob("small", 512, algorithm="sha512"), id="sha512"),
    pytest.param(empty_blob(), id="empty"),
    pytest.param(empty_blob("sha512"), id="empty sha512"),
    pytest.param(blob("large", 3 * 2**20 + 7), id="3 MiB"),
]
_BLOB = blob("pushed", 3000)


async def assert_created(wire: httpx.AsyncClient, response: httpx.Response, item: Blob) -> None:
    """201, the digest asked for, and a relative Location from which the bytes come back."""
    assert response.status_code == 201, response.text
    assert response.headers["docker-content-digest"] == str(item.digest)
    assert response.headers["location"] == f"/v2/{NAME}/blobs/{item.digest}"
    assert response.headers["content-length"] == "0"
    assert (await wire.get(response.headers["location"])).content == item.content


async def assert_absent(registry: Registry, item: Blob) -> None:
    """The repository has no such blob."""
    with pytest.raises(BlobUnknown):
        await registry.resolve_blob(_HERE, item.digest)


@pytest.mark.parametrize("item", _ITEMS)
async def test_post_alone(wire: httpx.AsyncClient, item: Blob) -> None:
    """The whole blob in one POST (end-4b)."""
    await assert_created(wire, await wire.post(f"{_UPLOADS}?digest={item.digest}", content=item.content), item)


@pytest.mark.parametrize("item", _ITEMS)
async def test_post_alone_without_content_length(wire: httpx.AsyncClient, item: Blob) -> None:
    """The same, in HTTP chunks."""
    response = await wire.post(f"{_UPLOADS}?digest={item.digest}", content=in_chunks(item.content, 100_000))
    await assert_created(wire, response, item)


@pytest.mark.parametrize("item", _ITEMS)
async def test_post_then_put(wire: httpx.AsyncClient, item: Blob) -> None:
    """The whole blob in the closing request: containerd, oras."""
    location = await start(wire)
    response = await finish(wire, location, item, item.content, content_type="application/octet-stream")
    await assert_created(wire, response, item)


@pytest.mark.parametrize("item", _ITEMS)
async def test_post_patch_put(wire: httpx.AsyncClient, item: Blob) -> None:
    """The whole blob in one PATCH with Content-Length and no Content-Range: skopeo, crane."""
    location = await start(wire)
    response = await wire.patch(location, content=item.content)
    location = assert_session(response, 202, max(len(item.content) - 1, 0))
    await assert_created(wire, await finish(wire, location, item), item)


@pytest.mark.parametrize("item", _ITEMS)
async def test_streamed_patch(wire: httpx.AsyncClient, item: Blob) -> None:
    """Transfer-Encoding: chunked, no type, range or length: docker."""
    location = await start(wire)
    response = await wire.patch(location, content=in_chunks(item.content, 100_000))
    location = assert_session(response, 202, max(len(item.content) - 1, 0))
    await assert_created(wire, await finish(wire, location, item), item)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("announced", [False, True], ids=["silent", "digest-algorithm"])
@pytest.mark.parametrize("last_in_put", [False, True], ids=["empty PUT", "last chunk in PUT"])
@pytest.mark.parametrize("form", ["{}-{}", "bytes {}-{}/*", "bytes {}-{}/3000", "bytes={}-{}"])
async def test_chunks(wire: httpx.AsyncClient, algorithm: str, announced: bool, last_in_put: bool, form: str) -> None:
    """Content-Range ``first-last``, and the liberal forms that clients send; the announced algorithm is optional."""
    item = blob("chunks", 3000, algorithm=algorithm)
    location = await start(wire, f"?digest-algorithm={algorithm}" if announced else "")
    for first in (0, 1000) if last_in_put else (0, 1000, 2000):
        headers = {"content-range": form.format(first, first + 999)}
        response = await wire.patch(location, content=item.content[first : first + 1000], headers=headers)
        location = assert_session(response, 202, first + 999)
    if last_in_put:
        response = await finish(wire, location, item, item.content[2000:], content_range=form.format(2000, 2999))
    else:
        response = await finish(wire, location, item)
    await assert_created(wire, response, item)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize(
    ("done", "first"), [(0, 1000), (1000, 0), (1000, 500), (1000, 1001), (1000, 2000), (2000, 1000)]
)
async def test_an_out_of_order_chunk_is_416(wire: httpx.AsyncClient, method: str, done: int, first: int) -> None:
    """PATCH and closing PUT alike; the session survives, says where it stands, and can be completed."""
    location = await start(wire)
    if done:
        response = await wire.patch(location, content=_BLOB.content[:done], headers={"content-range": f"0-{done - 1}"})
        location = assert_session(response, 202, done - 1)
    headers = {"content-range": f"{first}-{first + 999}"}
    target = f"{location}?digest={_BLOB.digest}" if method == "PUT" else location
    response = await wire.request(method, target, content=_BLOB.content[first : first + 1000], headers=headers)
    assert_error(response, 416, "RANGE_INVALID")
    assert assert_session(response, 416, done - 1 if done else None) == location
    status = await wire.get(location)
    location = assert_session(status, 204, done - 1 if done else None)
    response = await wire.patch(location, content=_BLOB.content[done:], headers={"content-range": f"{done}-2999"})
    await assert_created(wire, await finish(wire, assert_session(response, 202, 2999), _BLOB), _BLOB)


@pytest.mark.parametrize(
    "value",
    ["", "x", "0", "0-", "-999", "999-0", "bytes 0-x", "0-999/", "0-999, 1000-1999", "1_0-20", "+0-999",
     "\u0660-\u0663",      "0x0-0x3", "0-99999999999999999999", "bytes */1000", "0--1", "0 - 999"],
)  # fmt: skip
async def test_a_malformed_content_range_is_refused(wire: httpx.AsyncClient, value: str) -> None:
    """And changes nothing."""
    location = await start(wire)
    response = await wire.patch(location, content=b"x" * 1000, headers={b"content-range": value.encode()})
    assert response.status_code in (400, 416)
    assert_session(await wire.get(location), 204, None)


@pytest.mark.parametrize("value", ["0-998", "0-1000", "0-0", "0-99999"])
async def test_content_range_and_body_must_agree(wire: httpx.AsyncClient, value: str) -> None:
    """A chunk of another length than announced is refused before anything is stored."""
    location = await start(wire)
    response = await wire.patch(location, content=b"x" * 1000, headers={"content-range": value})
    assert_error(response, 400, "SIZE_INVALID")
    assert_session(await wire.get(location), 204, None)


@pytest.mark.parametrize("size", [999, 1001])
async def test_a_streamed_chunk_of_another_length_is_refused(wire: httpx.AsyncClient, size: int) -> None:
    """Content-Range with an HTTP-chunked body; the session stays usable."""
    location = await start(wire)
    response = await wire.patch(location, content=in_chunks(b"x" * size), headers={"content-range": "0-999"})
    assert_error(response, 400, "SIZE_INVALID")
    assert (await wire.get(location)).status_code == 204


_WRONG = [
    pytest.param("post", id="POST alone"),
    pytest.param("put", id="POST+PUT"),
    pytest.param("patch", id="PATCH+PUT"),
    pytest.param("last", id="last chunk in PUT"),
    pytest.param("stream", id="streamed"),
]


@pytest.mark.parametrize("way", _WRONG)
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_wrong_digest_is_400(wire: httpx.AsyncClient, local: Registry, way: str, algorithm: str) -> None:
    """By every method; the session is gone and no blob appears."""
    item = blob("wrong", 900, algorithm=algorithm)
    content = item.content + b"oh no"
    location = await start(wire) if way != "post" else ""
    match way:
        case "post":
            response = await wire.post(f"{_UPLOADS}?digest={item.digest}", content=content)
        case "put":
            response = await finish(wire, location, item, content)
        case "patch":
            response = await finish(wire, (await wire.patch(location, content=content)).headers["location"], item)
        case "last":
            location = (await wire.patch(location, content=content[:500])).headers["location"]
            response = await finish(wire, location, item, content[500:])
        case _:
            patched = await wire.patch(location, content=in_chunks(content))
            response = await finish(wire, patched.headers["location"], item)
    assert_error(response, 400, "DIGEST_INVALID")
    await assert_absent(local, item)
    if location:
        assert_error(await wire.get(location), 404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize("query", ["", "?digest=", "?digest=sha256:bad", "?digest=md5:0123", "?other=1"])
async def test_closing_needs_a_digest(wire: httpx.AsyncClient, query: str) -> None:
    """Without a good one nothing happens, and the session is still there."""
    location = await start(wire)
    await wire.patch(location, content=_BLOB.content)
    assert_error(await wire.put(f"{location}{query}"), 400, "DIGEST_INVALID")
    await assert_created(wire, await finish(wire, location, _BLOB), _BLOB)


@pytest.mark.parametrize("escape", [False, True])
async def test_the_digest_parameter_may_be_escaped(wire: httpx.AsyncClient, escape: bool) -> None:
    """``sha256%3A`` from most clients, ``sha256:`` from others."""
    digest = str(_BLOB.digest).replace(":", "%3A") if escape else str(_BLOB.digest)
    location = await start(wire)
    await assert_created(wire, await wire.put(f"{location}?digest={digest}", content=_BLOB.content), _BLOB)


async def test_status_follows_the_session(wire: httpx.AsyncClient) -> None:
    """GET says 204, Location and Range at every step (end-13)."""
    location = await start(wire)
    assert_session(await wire.get(location), 204, None)
    for end in (1, 1000, 3000):
        first = {1: 0, 1000: 1, 3000: 1000}[end]
        location = assert_session(await wire.patch(location, content=_BLOB.content[first:end]), 202, end - 1)
        assert_session(await wire.get(location), 204, end - 1)


async def test_cancel(wire: httpx.AsyncClient, local: Registry) -> None:
    """204 with and without a body length; then every verb says 404 (end-14)."""
    for headers in ({}, {"content-length": "0"}):
        location = await start(wire)
        await wire.patch(location, content=_BLOB.content)
        assert (await wire.delete(location, headers=headers)).status_code == 204
        assert_error(await wire.get(location), 404, "BLOB_UPLOAD_UNKNOWN")
        assert_error(await wire.patch(location, content=b"x"), 404, "BLOB_UPLOAD_UNKNOWN")
        assert_error(await finish(wire, location, _BLOB), 404, "BLOB_UPLOAD_UNKNOWN")
        assert_error(await wire.delete(location), 404, "BLOB_UPLOAD_UNKNOWN")
    await assert_absent(local, _BLOB)


async def test_a_finished_session_is_unknown(wire: httpx.AsyncClient) -> None:
    """Closing twice is 404, and the blob is there."""
    location = await start(wire)
    await assert_created(wire, await finish(wire, location, _BLOB, _BLOB.content), _BLOB)
    assert_error(await finish(wire, location, _BLOB, _BLOB.content), 404, "BLOB_UPLOAD_UNKNOWN")


async def test_two_sessions_of_one_blob(wire: httpx.AsyncClient) -> None:
    """The same layer may be uploaded twice at once."""
    one, two = await start(wire), await start(wire)
    for location in (one, two):
        await wire.patch(location, content=_BLOB.content)
    for location in (one, two):
        await assert_created(wire, await finish(wire, location, _BLOB), _BLOB)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize(
    "query",
    ["mount={0}&from={1}", "from={1}&mount={0}&origin=r.example", "mount={0}"],
    ids=["from", "origin", "anonymous"],
)
@pytest.mark.parametrize("escape", [False, True])
async def test_mount(wire: httpx.AsyncClient, local: Registry, algorithm: str, query: str, escape: bool) -> None:
    """201 without moving a byte, escaped or not, also without naming the source (end-11)."""
    item = blob("mounted", 512, algorithm=algorithm)
    await push_blobs(local, _THERE, [item])
    digest, source = str(item.digest), str(_THERE)
    if escape:
        digest, source = digest.replace(":", "%3A"), source.replace("/", "%2F")
    await assert_created(wire, await wire.post(f"{_UPLOADS}?{query.format(digest, source)}"), item)


@pytest.mark.parametrize("query", ["mount={0}&from={1}", "mount={0}"], ids=["from", "anonymous"])
async def test_a_mount_of_nothing_opens_a_session(wire: httpx.AsyncClient, query: str) -> None:
    """202, and the upload goes on from there."""
    response = await wire.post(f"{_UPLOADS}?{query.format(_BLOB.digest, _THERE)}")
    location = assert_session(response, 202, None)
    await assert_created(wire, await finish(wire, location, _BLOB, _BLOB.content), _BLOB)


async def test_a_mount_from_a_repository_without_the_blob_opens_a_session(
    wire: httpx.AsyncClient, local: Registry
) -> None:
    """Even if a third repository has it."""
    await push_blobs(local, repository("third"), [_BLOB])
    assert_session(await wire.post(f"{_UPLOADS}?mount={_BLOB.digest}&from={_THERE}"), 202, None)
    await assert_absent(local, _BLOB)


async def test_a_mounted_blob_outlives_its_source(wire: httpx.AsyncClient, local: Registry) -> None:
    """Deleting it there leaves it here (conformance: each repository by itself)."""
    await push_blobs(local, _THERE, [_BLOB])
    await wire.post(f"{_UPLOADS}?mount={_BLOB.digest}&from={_THERE}")
    assert (await wire.delete(f"/v2/{_THERE}/blobs/{_BLOB.digest}")).status_code == 202
    assert await read_bytes(local, _HERE, _BLOB.digest) == _BLOB.content


@pytest.mark.parametrize(
    "query", ["?digest-algorithm=md5", "?digest=sha256:x", "?mount=sha256:x", "?digest-algorithm="]
)
async def test_a_session_for_an_impossible_digest_is_refused(wire: httpx.AsyncClient, query: str) -> None:
    """At once, before anything is sent."""
    assert_error(await wire.post(f"{_UPLOADS}{query}"), 400, "DIGEST_INVALID")


async def test_a15_a_session_belongs_to_its_repository(wire: httpx.AsyncClient) -> None:
    """Rule A15: under another name it is unknown, and unharmed."""
    location = await start(wire)
    await wire.patch(location, content=_BLOB.content)
    foreign = location.replace(NAME, str(_THERE))
    assert_error(await wire.get(foreign), 404, "BLOB_UPLOAD_UNKNOWN")
    assert_error(await wire.patch(foreign, content=b"x"), 404, "BLOB_UPLOAD_UNKNOWN")
    assert_error(await finish(wire, foreign, _BLOB), 404, "BLOB_UPLOAD_UNKNOWN")
    assert_error(await wire.delete(foreign), 404, "BLOB_UPLOAD_UNKNOWN")
    await assert_created(wire, await finish(wire, location, _BLOB), _BLOB)


async def test_a_location_may_be_absolute_on_the_way_back(wire: httpx.AsyncClient, url: str) -> None:
    """Clients resolve it against the URL they asked."""
    location = await start(wire)
    await assert_created(wire, await finish(wire, f"{url}{location}", _BLOB, _BLOB.content), _BLOB)


async def test_unknown_parameters_stay_without_effect(wire: httpx.AsyncClient) -> None:
    """containerd's ``ns``, a proxy's signature."""
    location = await start(wire, "?ns=docker.io")
    response = await wire.put(f"{location}?ns=x&digest={_BLOB.digest}&_state=abc", content=_BLOB.content)
    await assert_created(wire, response, _BLOB)
