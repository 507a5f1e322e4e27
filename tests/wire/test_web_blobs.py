"""Blobs through the web layer over a real server: read whole and in ranges, and pushed in every way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from email.message import Message
from email.parser import BytesParser

import httpx
import pytest
from moorage.registry.oci import Digest
from moorage.registry.oci.media_types import OCI_INDEX
from moorage.registry.web import uploads
from moorage.storage_backends.base import UPLOADS
from moorage.storage_backends.memory import MemoryStore

from tests.stage import ON_STAGE
from tests.wire.boat import BLOB_URL, DIGEST, HULL, INDEX, MANIFEST_URL, UPLOADS_URL, chunks, error_code, exchange

pytestmark = ON_STAGE


# Pull ---------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hull")
async def test_get_and_head_of_a_blob_carry_the_same_headers(wire: httpx.AsyncClient) -> None:
    """Length, type, digest, ETag, ranges and the rule A20 headers, on both."""
    get, head = await wire.get(BLOB_URL), await wire.head(BLOB_URL)
    assert get.content == HULL
    assert head.content == b""
    for answer in (get, head):
        assert answer.status_code == 200
        assert answer.headers["content-length"] == str(len(HULL))
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["docker-content-digest"] == str(DIGEST)
        assert answer.headers["etag"] == f'"{DIGEST}"'
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.usefixtures("hull")
@pytest.mark.parametrize(
    ("asked", "content_range", "content"),
    [
        pytest.param("bytes=500-1499", "bytes 500-1499/2048", HULL[500:1500], id="closed"),
        pytest.param("bytes=0-", "bytes 0-2047/2048", HULL, id="open, as containerd sends it"),
        pytest.param("bytes=-500", "bytes 1548-2047/2048", HULL[-500:], id="suffix"),
        pytest.param("bytes=2000-5000", "bytes 2000-2047/2048", HULL[2000:], id="clamped"),
    ],
)
async def test_a_range_of_a_blob(wire: httpx.AsyncClient, asked: str, content_range: str, content: bytes) -> None:
    """206 with the exact last byte and the total in Content-Range."""
    answer = await wire.get(BLOB_URL, headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-range"], answer.content) == (206, content_range, content)
    assert answer.headers["content-length"] == str(len(content))


@pytest.mark.usefixtures("hull")
async def test_several_ranges_are_a_multipart_answer(wire: httpx.AsyncClient) -> None:
    """As podman asks for the files of a zstd:chunked layer; any MIME parser reads the answer."""
    answer = await wire.get(BLOB_URL, headers={"Range": "bytes=0-9, 100-199, -5"})
    assert answer.status_code == 206
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message: Message = BytesParser().parsebytes(head + answer.content)
    parts = [
        (part["Content-Range"], part.get_payload(decode=True)) for part in message.walk() if "Content-Range" in part
    ]
    assert parts == [
        ("bytes 0-9/2048", HULL[:10]),
        ("bytes 100-199/2048", HULL[100:200]),
        ("bytes 2043-2047/2048", HULL[-5:]),
    ]
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.usefixtures("hull")
@pytest.mark.parametrize("asked", ["bytes=5000-10000", "bytes=2048-", "bytes=500-0"])
async def test_a_range_outside_the_blob(wire: httpx.AsyncClient, asked: str) -> None:
    """416, and Content-Range tells the size."""
    answer = await wire.get(BLOB_URL, headers={"Range": asked})
    assert (answer.status_code, error_code(answer)) == (416, "RANGE_INVALID")
    assert answer.headers["content-range"] == "bytes */2048"


@pytest.mark.usefixtures("hull")
@pytest.mark.parametrize(
    ("condition", "status"),
    [
        pytest.param(f'"{DIGEST}"', 206, id="this blob"),
        pytest.param(f'W/"{DIGEST}"', 200, id="weak"),
        pytest.param('"another"', 200, id="another"),
        pytest.param("Sat, 21 Nov 2026 00:00:00 GMT", 200, id="date"),
    ],
)
async def test_if_range(wire: httpx.AsyncClient, condition: str, status: int) -> None:
    """The range counts only with the strong ETag of this blob."""
    answer = await wire.get(BLOB_URL, headers={"Range": "bytes=0-9", "If-Range": condition})
    assert answer.status_code == status


@pytest.mark.usefixtures("hull")
@pytest.mark.parametrize("etag", [f'"{DIGEST}"', f'W/"{DIGEST}"', f'"x", "{DIGEST}"', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_not_modified(wire: httpx.AsyncClient, method: str, etag: str) -> None:
    """Who has the content is not sent it again; 304 has the ETag and no body."""
    await wire.put(MANIFEST_URL, content=INDEX.content, headers={"Content-Type": OCI_INDEX})
    for url, digest in ((BLOB_URL, DIGEST), (MANIFEST_URL, INDEX.digest)):
        answer = await wire.request(method, url, headers={"If-None-Match": etag.replace(str(DIGEST), str(digest))})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", f'"{digest}"')
        assert (await wire.request(method, url, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_not_modified_needs_the_blob(wire: httpx.AsyncClient) -> None:
    """Knowing a digest does not tell whether the repository has it."""
    answer = await wire.get(BLOB_URL, headers={"If-None-Match": f'"{DIGEST}"'})
    assert (answer.status_code, error_code(answer)) == (404, "BLOB_UNKNOWN")


async def test_head_never_has_a_body(wire: httpx.AsyncClient) -> None:
    """Not even to say what is wrong: the next answer on the connection stands where it should."""
    request = f"HEAD {BLOB_URL} HTTP/1.1\r\nHost: x\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection(wire.base_url.host, wire.base_url.port)
    writer.write(request.encode())
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404")
    assert rest.startswith(b"HTTP/1.1 200")


# Push ---------------------------------------------------------------------------------------------------------------


async def open_session(wire: httpx.AsyncClient) -> str:
    answer = await wire.post(UPLOADS_URL)
    assert answer.status_code == 202
    assert answer.headers["range"] == "0-0"
    location = answer.headers["location"]
    assert location == UPLOADS_URL + answer.headers["docker-upload-uuid"]
    return str(location)


@pytest.mark.parametrize("last", [b"", HULL[1000:]], ids=["empty closing request", "closing request with the rest"])
async def test_upload_in_chunks(wire: httpx.AsyncClient, last: bytes) -> None:
    """POST, PATCH with Content-Range, PUT: each answer tells where the session stands."""
    location = await open_session(wire)
    first = HULL[:1000] if last else HULL
    answer = await wire.patch(location, content=first, headers={"Content-Range": f"0-{len(first) - 1}"})
    assert (answer.status_code, answer.headers["range"]) == (202, f"0-{len(first) - 1}")
    headers = {"Content-Range": f"1000-{len(HULL) - 1}"} if last else {}
    answer = await wire.put(f"{location}?digest={DIGEST}", content=last, headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (201, BLOB_URL)
    assert answer.headers["docker-content-digest"] == str(DIGEST)
    assert (await wire.get(BLOB_URL)).content == HULL


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("start", [5, 20], ids=["again", "gap"])
async def test_a_chunk_out_of_order(wire: httpx.AsyncClient, method: str, start: int) -> None:
    """416 with the session's place, and the session survives."""
    location = await open_session(wire)
    await wire.patch(location, content=HULL[:10], headers={"Content-Range": "0-9"})
    answer = await wire.request(
        method, f"{location}?digest={DIGEST}", content=b"12345", headers={"Content-Range": f"{start}-{start + 4}"}
    )
    assert (answer.status_code, error_code(answer)) == (416, "RANGE_INVALID")
    assert (answer.headers["location"], answer.headers["range"]) == (location, "0-9")
    status = await wire.get(location)
    assert (status.status_code, status.headers["range"], status.content) == (204, "0-9", b"")
    assert (await wire.put(f"{location}?digest={DIGEST}", content=HULL[10:])).status_code == 201


@pytest.mark.parametrize(
    ("content_range", "kept"),
    [pytest.param("0-8", "0-0", id="more than announced"), pytest.param("0-10", "0-9", id="fewer than announced")],
)
async def test_a_streamed_chunk_of_another_length(wire: httpx.AsyncClient, content_range: str, kept: str) -> None:
    """SIZE_INVALID; nothing beyond the range that was announced is kept."""
    location = await open_session(wire)
    answer = await wire.patch(location, content=chunks(HULL[:10]), headers={"Content-Range": content_range})
    assert (answer.status_code, error_code(answer)) == (400, "SIZE_INVALID")
    assert (await wire.get(location)).headers["range"] == kept


@pytest.mark.parametrize("content_range", ["0-8", "0-10"])
async def test_lengths_that_disagree_keep_nothing(wire: httpx.AsyncClient, content_range: str) -> None:
    """Content-Length against Content-Range: refused before a byte is kept."""
    location = await open_session(wire)
    answer = await wire.patch(location, content=HULL[:10], headers={"Content-Range": content_range})
    assert (answer.status_code, error_code(answer)) == (400, "SIZE_INVALID")
    assert (await wire.get(location)).headers["range"] == "0-0"


async def test_whole_blobs_by_post(wire: httpx.AsyncClient) -> None:
    """POST with the digest: with a length, in chunks of unknown length, and empty."""
    for content in (HULL, chunks(HULL[:7], HULL[7:]), b""):
        digest = Digest.of(b"") if content == b"" else DIGEST
        answer = await wire.post(f"{UPLOADS_URL}?digest={digest}", content=content)
        assert (answer.status_code, answer.headers["location"]) == (201, f"/v2/moored/boat/blobs/{digest}")


async def test_a_whole_blob_with_another_digest_leaves_nothing(wire: httpx.AsyncClient) -> None:
    """400, and neither blob nor session."""
    answer = await wire.post(f"{UPLOADS_URL}?digest={DIGEST}", content=HULL[:-1])
    assert (answer.status_code, error_code(answer)) == (400, "DIGEST_INVALID")
    assert (await wire.head(BLOB_URL)).status_code == 404


@pytest.mark.usefixtures("hull")
async def test_mounts(wire: httpx.AsyncClient) -> None:
    """From the repository that has it: 201; from one that has not: a session."""
    query = {"mount": str(DIGEST), "from": "moored/boat"}
    answer = await wire.post("/v2/other/blobs/uploads/", params=query)
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v2/other/blobs/{DIGEST}")
    answer = await wire.post("/v2/third/blobs/uploads/", params={**query, "from": "nowhere"})
    assert answer.status_code == 202
    assert answer.headers["location"].startswith("/v2/third/blobs/uploads/")


async def test_a_session_that_is_cancelled_is_gone(wire: httpx.AsyncClient) -> None:
    """DELETE says 204, then nobody knows it."""
    location = await open_session(wire)
    assert (await wire.delete(location)).status_code == 204
    for method in ("GET", "PATCH", "DELETE"):
        answer = await wire.request(method, location)
        assert (answer.status_code, error_code(answer)) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_a14_a_body_cut_short_is_kept_and_never_complete(wire: httpx.AsyncClient) -> None:
    """The client leaves in the middle of the closing PUT: the bytes wait in the session, and there is no blob."""
    location = await open_session(wire)
    head = f"PUT {location}?digest={DIGEST} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(HULL)}\r\n\r\n".encode()
    await exchange(wire, head + HULL[:1000], close=True)
    for _ in range(500):
        if (await wire.get(location)).headers["range"] == "0-999":
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("the bytes that arrived were not kept")
    assert (await wire.head(BLOB_URL)).status_code == 404
    answer = await wire.put(f"{location}?digest={DIGEST}", content=HULL[1000:])
    assert answer.status_code == 201


async def test_a14_a_whole_blob_cut_short_leaves_nothing(wire: httpx.AsyncClient, store: MemoryStore) -> None:
    """Nobody was told of a session behind POST ?digest=, so the cut body leaves none, and no blob."""
    head = f"POST {UPLOADS_URL}?digest={DIGEST} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(HULL)}\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection(wire.base_url.host, wire.base_url.port)
    writer.write(head + HULL[:1000])
    await eventually(lambda: sessions(store), is_there=True)
    writer.close()
    await writer.wait_closed()
    await eventually(lambda: sessions(store), is_there=False)
    assert (await wire.head(BLOB_URL)).status_code == 404
    assert reader.at_eof()


async def sessions(store: MemoryStore) -> list[str]:
    return [str(entry) async for entry in store.list(UPLOADS)]


async def eventually(look: Callable[[], Awaitable[list[str]]], *, is_there: bool) -> None:
    """Waits until there is something to see, or nothing any more."""
    for _ in range(500):
        if bool(await look()) == is_there:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"after five seconds still {await look()}")


@pytest.mark.parametrize(
    "request_line",
    [
        pytest.param(f"PUT {UPLOADS_URL}nobody?digest={DIGEST}", id="unknown session"),
        pytest.param(f"PUT {UPLOADS_URL}nobody?digest=sha256:x", id="bad digest"),
        pytest.param(f"PATCH {UPLOADS_URL}nobody", id="unknown session of a stream"),
        pytest.param("PUT /v2/moored/boat/manifests/sha256:x", id="bad reference"),
    ],
)
async def test_refused_before_the_body_is_asked_for(wire: httpx.AsyncClient, request_line: str) -> None:
    """Expect: 100-continue gets the final answer at once, and the connection ends: the body will not come."""
    head = f"{request_line} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n"
    answer = await exchange(wire, head.encode())
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 "))
    assert b"\r\nconnection: close\r\n" in answer


@pytest.mark.parametrize(("size", "status"), [(99, 202), (100, 202), (101, 413)])
@pytest.mark.parametrize("streamed", [False, True], ids=["length", "stream"])
@pytest.mark.parametrize("before", [0, 60], ids=["at once", "in two requests"])
async def test_upload_limit(
    wire: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, size: int, status: int, streamed: bool, before: int
) -> None:
    """A blob may be as large as the limit, not a byte more, however it arrives."""
    monkeypatch.setattr(uploads, "UPLOAD_LIMIT", 100)
    location = await open_session(wire)
    if before:
        assert (await wire.patch(location, content=HULL[:before])).status_code == 202
    rest = HULL[before:size]
    answer = await wire.patch(location, content=chunks(rest) if streamed else rest)
    assert answer.status_code == status
    if status == 413:
        assert error_code(answer) == "SIZE_INVALID"
