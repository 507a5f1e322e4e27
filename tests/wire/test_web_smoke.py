"""The web layer over a real server: what holds whatever the registry behind it, and what it does when that fails."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.message import Message
from email.parser import BytesParser

import httpx
import pytest
import pytest_asyncio
from moorage.registry.oci import (
    BlobStream,
    Descriptor,
    Digest,
    Manifest,
    Registry,
    RepositoryName,
    TooManyRequests,
    Unavailable,
    UploadStatus,
)
from moorage.registry.oci.media_types import OCI_INDEX, OCTET_STREAM
from moorage.registry.store import LocalRegistry
from moorage.registry.web import uploads
from moorage.registry.web.app import create_app
from moorage.registry.wrap.read_only import NoDelete, ReadOnly
from moorage.storage_backends.base import UPLOADS
from moorage.storage_backends.errors import StorageError, StorageFull, StorageUnavailable
from moorage.storage_backends.memory import MemoryStore

from tests.interleaving import SteppedStore
from tests.stage import ON_STAGE, Stage

pytestmark = ON_STAGE

REPOSITORY = RepositoryName("moored/boat")
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
    """What the server answers to raw bytes within a moment. ``close``: leave right after sending them."""
    reader, writer = await asyncio.open_connection(wire.base_url.host, wire.base_url.port)
    try:
        writer.write(request)
        await writer.drain()
        if close:
            return b""
        async with asyncio.timeout(5):
            return await reader.read(65536)
    finally:
        writer.close()
        await writer.wait_closed()


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


# Manifests and lists ------------------------------------------------------------------------------------------------


async def test_tags_as_registers(wire: httpx.AsyncClient) -> None:
    """If-None-Match: * creates once; If-Match moves the tag only from what the client saw."""
    second = Manifest.of(b'{"schemaVersion":2,"manifests":[],"annotations":{"a":"b"}}', OCI_INDEX)

    async def put(manifest: Manifest, **condition: str) -> int:
        headers = {"Content-Type": OCI_INDEX, **{key.replace("_", "-"): value for key, value in condition.items()}}
        return (await wire.put(MANIFEST_URL, content=manifest.content, headers=headers)).status_code

    assert await put(INDEX, If_None_Match="*") == 201
    assert await put(second, If_None_Match="*") == 412
    assert await put(second, If_Match=f'"{second.digest}"') == 412
    assert await put(second, If_Match=f'W/"{INDEX.digest}"') == 412
    assert await put(second, If_Match='"nonsense"') == 412
    assert await put(second, If_Match="*") == 412
    assert await put(second, If_None_Match=f'"{INDEX.digest}"') == 412
    assert (await wire.head(MANIFEST_URL)).headers["docker-content-digest"] == str(INDEX.digest)
    assert await put(second, If_Match=f'"{INDEX.digest}"') == 201
    assert (await wire.get(MANIFEST_URL)).content == second.content


@pytest.mark.parametrize("content_type", [OCI_INDEX, f"{OCI_INDEX}; charset=utf-8", None])
async def test_manifest_content_types(wire: httpx.AsyncClient, content_type: str | None) -> None:
    """Parameters are dropped, an absent type is told from the document; the answer never has parameters."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await wire.put(f"{MANIFEST_URL}?tag=a&tag=b", content=INDEX.content, headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v2/moored/boat/manifests/{INDEX.digest}")
    assert answer.headers.get_list("oci-tag") == ["a", "b"]
    for tag in ("latest", "a", "b"):
        answer = await wire.get(f"/v2/moored/boat/manifests/{tag}", headers={"Accept": "text/plain"})
        assert (answer.headers["content-type"], answer.content) == (OCI_INDEX, INDEX.content)


@pytest.mark.parametrize("streamed", [False, True], ids=["length", "stream"])
async def test_a1_manifest_limit(wire: httpx.AsyncClient, streamed: bool) -> None:
    """4 MiB are read, a byte more is 413, with Content-Length and without."""
    limit = 4 * 1024 * 1024
    for size, status in ((limit, 201), (limit + 1, 413)):
        content = INDEX.content.ljust(size)
        answer = await wire.put(MANIFEST_URL, content=chunks(content) if streamed else content)
        assert answer.status_code == status


async def test_lists_come_in_pages(wire: httpx.AsyncClient) -> None:
    """Link leads from page to page, relative, to the end; n=0 is an empty page without Link."""
    tags = [f"v{i}" for i in range(5)]
    await wire.put(MANIFEST_URL, content=INDEX.content)
    await wire.delete(MANIFEST_URL)
    for tag in tags:
        await wire.put(f"/v2/moored/boat/manifests/{tag}", content=INDEX.content)
    url: str | None = "/v2/moored/boat/tags/list?n=2"
    seen = []
    while url:
        answer = await wire.get(url)
        seen.append(answer.json()["tags"])
        assert answer.json()["name"] == "moored/boat"
        url = answer.links["next"]["url"] if answer.links else None
        assert url is None or url.startswith("/v2/moored/boat/tags/list?")
    assert seen == [["v0", "v1"], ["v2", "v3"], ["v4"]]
    empty = await wire.get("/v2/moored/boat/tags/list?n=0")
    assert (empty.json()["tags"], "link" in empty.headers) == ([], False)
    assert (await wire.get("/v2/_catalog")).json() == {"repositories": ["moored/boat"]}
    assert error_code(await wire.get("/v2/nobody/tags/list?n=0")) == "NAME_UNKNOWN"


async def test_referrers_come_in_pages(wire: httpx.AsyncClient) -> None:
    """An image index always; filtered and paged it says so."""
    expected = set()
    for i in range(3):
        subject = {"mediaType": OCI_INDEX, "digest": str(INDEX.digest), "size": len(INDEX.content)}
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": subject}
        document["annotations"] = {"number": str(i)}
        content = json.dumps({**document, "artifactType": f"application/vnd.t{i % 2}"}).encode()
        answer = await wire.put(f"/v2/moored/boat/manifests/{Digest.of(content)}", content=content)
        assert (answer.status_code, answer.headers["oci-subject"]) == (201, str(INDEX.digest))
        if i % 2 == 0:
            expected.add(str(Digest.of(content)))
    url: str | None = f"/v2/moored/boat/referrers/{INDEX.digest}?artifactType=application/vnd.t0&n=1"
    seen = []
    while url:
        answer = await wire.get(url)
        assert (answer.status_code, answer.headers["content-type"]) == (200, OCI_INDEX)
        assert answer.headers["oci-filters-applied"] == "artifactType"
        seen += [entry["digest"] for entry in answer.json()["manifests"]]
        url = answer.links["next"]["url"] if answer.links else None
    assert (set(seen), len(seen)) == (expected, 2)
    nobody = await wire.get(f"/v2/nobody/referrers/{INDEX.digest}")
    assert (nobody.status_code, nobody.json()["manifests"]) == (200, [])


# Refusals and failures ----------------------------------------------------------------------------------------------


async def test_405_says_what_is_allowed(wire: httpx.AsyncClient, stage: Stage, local: Registry) -> None:
    """By the path's methods, and under a switch by what it leaves."""
    answer = await wire.post("/v2/moored/boat/tags/list")
    assert (answer.status_code, error_code(answer), answer.headers["allow"]) == (405, "UNSUPPORTED", "GET")
    for wrapper, switch in ((ReadOnly, "--read-only"), (NoDelete, "--no-delete")):
        stage.show(create_app(wrapper(local)))
        answer = await wire.delete(MANIFEST_URL)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        assert switch in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("path", ["/v3", "/v2x", "/", "/v2/a/b/c", "/healthz/x"])
async def test_unknown_paths(wire: httpx.AsyncClient, path: str) -> None:
    """404 in the protocol's shape, everywhere."""
    answer = await wire.get(path)
    assert (answer.status_code, error_code(answer)) == (404, "NOT_FOUND")


async def test_operations(wire: httpx.AsyncClient, stage: Stage, local: Registry) -> None:
    """Liveness, readiness and metrics beside the API."""
    state = {"ready": True}
    stage.show(create_app(local, ready=lambda: state["ready"], metrics=lambda: b"ships 3\n"))
    assert (await wire.get("/healthz")).status_code == 200
    assert (await wire.get("/readyz")).status_code == 200
    state["ready"] = False
    assert (await wire.get("/readyz")).status_code == 503
    assert (await wire.get("/healthz")).status_code == 200
    answer = await wire.get("/metrics")
    assert answer.content == b"ships 3\n"
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert (await wire.post("/healthz")).headers["allow"] == "GET, HEAD"


class Broken:
    """The gate of a store that fails at every call."""

    def __init__(self, fault: Exception) -> None:
        self.fault = fault

    async def turn(self) -> None:
        """Fails."""
        raise self.fault

    def answered(self) -> None:
        """Never comes to this."""

    def saw(self, doom: str) -> None:
        """Never comes to this."""


class Failing(NoDelete):
    """A registry whose reads fail in the middle of the content."""

    def __init__(self, inner: Registry, *, content: tuple[bytes, ...], size: int) -> None:
        super().__init__(inner)
        self.content = content
        self.descriptor = Descriptor(OCTET_STREAM, DIGEST, size)

    @asynccontextmanager
    async def read_blob(  # a generator is one way to make such a context manager
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[BlobStream]:
        yield self

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.content:
            yield chunk
        raise Unavailable


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        pytest.param(StorageUnavailable("bucket is away"), 503, "UNAVAILABLE", id="unavailable"),
        pytest.param(StorageFull("no inode"), 507, "STORAGE_FULL", id="full"),
        pytest.param(StorageError("secret path"), 500, "UNKNOWN", id="storage defect"),
        pytest.param(ZeroDivisionError("secret number"), 500, "UNKNOWN", id="defect"),
        pytest.param(TooManyRequests(), 429, "TOOMANYREQUESTS", id="too many"),
    ],
)
@pytest.mark.parametrize("path", [BLOB_URL, MANIFEST_URL])
async def test_faults_become_answers(
    wire: httpx.AsyncClient,
    stage: Stage,
    caplog: pytest.LogCaptureFixture,
    fault: Exception,
    status: int,
    code: str,
    path: str,
) -> None:
    """The right status and no word about our insides; what nobody expected is in the log with its trace."""
    stage.show(
        create_app(LocalRegistry(SteppedStore(MemoryStore(), Broken(fault)), allow_sparse=False, clock=time.time))
    )
    answer = await (wire.get(path) if path == BLOB_URL else wire.head(path))
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == ("5" if status in (429, 503) else None)
    if path == BLOB_URL:
        assert error_code(answer) == code
        assert str(fault) not in answer.text or status == 429
    traces = [record for record in caplog.records if record.exc_info and record.name.startswith("moorage")]
    assert len(traces) == (1 if status == 500 else 0)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        pytest.param((b"x" * 1000,), 2000, id="a fault in the middle"),
        pytest.param((b"x" * 1000, b"x" * 1000, b"x"), 2000, id="more than announced ends where announced"),
    ],
)
async def test_a_failure_in_the_middle_breaks_the_connection(
    wire: httpx.AsyncClient,
    stage: Stage,
    local: Registry,
    caplog: pytest.LogCaptureFixture,
    content: tuple[bytes, ...],
    size: int,
) -> None:
    """Half an answer is never a whole one: the client notices, or has got exactly what was announced."""
    caplog.set_level(logging.CRITICAL)
    stage.show(create_app(Failing(local, content=content, size=size)))
    if sum(map(len, content)) < size:
        with pytest.raises(httpx.RemoteProtocolError):
            await wire.get(BLOB_URL)
    else:
        assert len((await wire.get(BLOB_URL)).content) == size


class Endless(NoDelete):
    """A registry with a blob too large to be sent; ``closed`` is set when its reader is done with it."""

    descriptor = Descriptor(OCTET_STREAM, DIGEST, 2**50)

    def __init__(self, inner: Registry) -> None:
        super().__init__(inner)
        self.closed = asyncio.Event()

    @asynccontextmanager
    async def read_blob(  # a generator is one way to make such a context manager
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[BlobStream]:
        try:
            yield self
        finally:
            self.closed.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunk = bytes(65536)
        while True:
            yield chunk
            await asyncio.sleep(0)


async def test_nothing_is_produced_for_a_client_that_left(
    wire: httpx.AsyncClient, stage: Stage, local: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """Containerd closes after the bytes it wanted: the stream is closed, and nobody logs an error."""
    endless = Endless(local)
    stage.show(create_app(endless))
    async with wire.stream("GET", BLOB_URL) as answer:
        async for _ in answer.aiter_raw():
            break
    async with asyncio.timeout(5):
        await endless.closed.wait()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


class Injecting(NoDelete):
    """A registry, for example a remote one, whose upload ids are not to be trusted."""

    upload = ""

    async def start_upload(self, repository: RepositoryName, *, algorithm: str | None = None) -> UploadStatus:
        return UploadStatus(self.upload, 0)


@pytest.mark.parametrize("upload", ["id\r\nX-Injected: yes", "two words", "ünicode", "tab\t", "nul\0", ""])
async def test_a21_no_header_is_built_from_unchecked_text(
    wire: httpx.AsyncClient, stage: Stage, local: Registry, caplog: pytest.LogCaptureFixture, upload: str
) -> None:
    """What is not visible ASCII never gets into a header: an error of ours, not a header of theirs (rule A21)."""
    caplog.set_level(logging.CRITICAL)
    injecting = Injecting(local)
    injecting.upload = upload
    stage.show(create_app(injecting))
    answer = await wire.post(UPLOADS_URL)
    assert (answer.status_code, "x-injected" in answer.headers) == (500, False)
