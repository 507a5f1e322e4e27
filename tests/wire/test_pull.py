"""Pulling over the wire: what GET and HEAD say (spec "Pull"; interop traps)."""

from __future__ import annotations

import httpx
import pytest
from moorage.registry.oci import Registry

from tests.content import Blob, Content, blob, empty_blob, gallery, image, index, push, push_blobs, repository
from tests.stage import ON_STAGE
from tests.wire.talk import NAME, assert_error, raw_exchange

pytestmark = ON_STAGE

_HERE = repository(NAME)
_BLOB = blob("pulled", 2048)
_KINDS = [pytest.param(value, id=key) for key, value in gallery().items()]


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
async def test_ping(wire: httpx.AsyncClient, path: str) -> None:
    """200 with or without the slash; older clients tell version 2 by the header."""
    response = await wire.get(path)
    assert (response.status_code, response.json()) == (200, {})
    assert response.headers["docker-distribution-api-version"] == "registry/2.0"
    assert response.headers["content-type"] == "application/json"


@pytest.mark.served
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("item", [_BLOB, blob("long", 512, algorithm="sha512"), empty_blob(), empty_blob("sha512")])
async def test_a_blob_says_all_about_itself(wire: httpx.AsyncClient, local: Registry, method: str, item: Blob) -> None:
    """GET and HEAD alike: status, length, type, digest, ETag, ranges; HEAD has no body."""
    await push_blobs(local, _HERE, [item])
    response = await wire.request(method, f"/v2/{NAME}/blobs/{item.digest}")
    assert response.status_code == 200
    assert response.headers["content-length"] == str(len(item.content))
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["docker-content-digest"] == str(item.digest)
    assert response.headers["etag"] == f'"{item.digest}"'
    assert response.headers["accept-ranges"] == "bytes"
    assert response.content == (item.content if method == "GET" else b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("content", _KINDS)
async def test_a_manifest_says_all_about_itself(
    wire: httpx.AsyncClient, local: Registry, method: str, content: Content
) -> None:
    """By tag and by digest: the exact media type without parameters, the exact bytes, the digest asked for."""
    await push(local, _HERE, content, "tag")
    for reference in (content.digest, "tag"):
        response = await wire.request(method, f"/v2/{NAME}/manifests/{reference}")
        assert response.status_code == 200
        assert response.headers["content-type"] == content.manifest.media_type
        assert response.headers["content-length"] == str(len(content.manifest.content))
        assert response.headers["docker-content-digest"] == str(content.digest)
        assert response.headers["etag"] == f'"{content.digest}"'
        assert response.content == (content.manifest.content if method == "GET" else b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "code"),
    [
        pytest.param(f"/v2/{NAME}/blobs/{_BLOB.digest}", "BLOB_UNKNOWN", id="blob"),
        pytest.param(f"/v2/no/where/blobs/{_BLOB.digest}", "BLOB_UNKNOWN", id="blob of no repository"),
        pytest.param(f"/v2/{NAME}/manifests/missing", "MANIFEST_UNKNOWN", id="tag"),
        pytest.param(f"/v2/{NAME}/manifests/{_BLOB.digest}", "MANIFEST_UNKNOWN", id="manifest digest"),
        pytest.param("/v2/no/where/manifests/latest", "MANIFEST_UNKNOWN", id="manifest of no repository"),
    ],
)
async def test_what_is_not_there_is_404(
    wire: httpx.AsyncClient, local: Registry, method: str, path: str, code: str
) -> None:
    """HEAD has the same status and headers, without the body."""
    await push(local, _HERE, image(), "tag")
    response = await wire.request(method, path)
    if method == "GET":
        assert_error(response, 404, code)
    else:
        assert (response.status_code, response.content) == (404, b"")
        assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_bad_digest_reference_is_never_a_tag(wire: httpx.AsyncClient, method: str) -> None:
    """Conformance: ``sha256:baddigeststring`` is refused as a digest."""
    response = await wire.request(method, f"/v2/{NAME}/manifests/sha256:baddigeststring")
    assert response.status_code == 400


_ACCEPTS = [
    pytest.param([], id="none"),
    pytest.param(["*/*"], id="curl"),
    pytest.param(["application/vnd.docker.distribution.manifest.v2+json"], id="old script: one docker type"),
    pytest.param(["application/vnd.oci.image.manifest.v1+json"], id="image types only"),
    pytest.param(
        [
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "application/json",
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
        ],
        id="docker and skopeo: six lines",
    ),
    pytest.param(["application/vnd.oci.image.index.v1+json, */*;q=0.1"], id="list with weights"),
    pytest.param(["text/html"], id="something else"),
    pytest.param([""], id="empty"),
]


@pytest.mark.parametrize("accepts", _ACCEPTS)
@pytest.mark.parametrize(
    "content", [image(), image("two", docker=True), index([image()])], ids=["OCI", "docker", "index"]
)
async def test_accept_never_changes_the_answer(
    wire: httpx.AsyncClient, local: Registry, accepts: list[str], content: Content
) -> None:
    """It may come as several lines in any order, or not at all: bytes and type are those that were pushed."""
    await push(local, _HERE, content, "tag")
    headers = [("accept", value) for value in accepts]
    response = await wire.get(f"/v2/{NAME}/manifests/tag", headers=headers)
    assert (response.status_code, response.content) == (200, content.manifest.content)
    assert response.headers["content-type"] == content.manifest.media_type


@pytest.mark.parametrize("encoding", ["gzip", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5", "gzip, deflate, zstd", "*"])
async def test_nothing_is_compressed_on_the_way(wire: httpx.AsyncClient, local: Registry, encoding: str) -> None:
    """Lengths, ranges and digests are those of the stored bytes."""
    large = image(annotations={"note": "A" * 100_000})
    await push(local, _HERE, large, "tag")
    for path, size in (
        (f"/v2/{NAME}/manifests/tag", len(large.manifest.content)),
        (f"/v2/{NAME}/blobs/{large.blobs[1].digest}", len(large.blobs[1].content)),
        (f"/v2/{NAME}/tags/list", None),
    ):
        response = await wire.get(path, headers={"accept-encoding": encoding})
        assert "content-encoding" not in response.headers
        assert size is None or response.headers["content-length"] == str(size)


@pytest.mark.parametrize("value", ["bytes=0-", "bytes=0-99", "bytes=9999999-"])
async def test_a_range_on_a_manifest_is_no_obstacle(wire: httpx.AsyncClient, local: Registry, value: str) -> None:
    """containerd 2.1 sends ``Range: bytes=0-`` for manifests; the whole, or a right part, is an answer."""
    content = image()
    await push(local, _HERE, content, "tag")
    response = await wire.get(f"/v2/{NAME}/manifests/tag", headers={"range": value})
    assert (response.status_code, response.content) == (200, content.manifest.content)


@pytest.mark.parametrize("header", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", ["manifests", "blobs"])
async def test_known_content_is_304(
    wire: httpx.AsyncClient, local: Registry, method: str, header: str, kind: str
) -> None:
    """If-None-Match with the ETag; the answer still names the digest."""
    content = image()
    await push(local, _HERE, content, "tag")
    digest = content.digest if kind == "manifests" else content.blobs[0].digest
    headers = {"if-none-match": header.format(digest)}
    response = await wire.request(method, f"/v2/{NAME}/{kind}/{digest}", headers=headers)
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == f'"{digest}"'
    assert response.headers["docker-content-digest"] == str(digest)


@pytest.mark.parametrize("header", ['"sha256:other"', "", "nonsense", '"latest"'])
async def test_other_content_is_sent(wire: httpx.AsyncClient, local: Registry, header: str) -> None:
    """If-None-Match that does not match is as good as none."""
    await push(local, _HERE, image(), "tag")
    response = await wire.get(f"/v2/{NAME}/manifests/tag", headers={"if-none-match": header})
    assert (response.status_code, response.content) == (200, image().manifest.content)


async def test_a_moved_tag_is_not_304(wire: httpx.AsyncClient, local: Registry) -> None:
    """The ETag of a tag is what it names now."""
    await push(local, _HERE, image("one"), "tag")
    await push(local, _HERE, image("two"), "tag")
    response = await wire.get(f"/v2/{NAME}/manifests/tag", headers={"if-none-match": f'"{image("one").digest}"'})
    assert (response.status_code, response.content) == (200, image("two").manifest.content)


async def test_a_known_digest_of_another_repository_is_404(wire: httpx.AsyncClient, local: Registry) -> None:
    """If-None-Match tells nobody what is stored elsewhere."""
    await push_blobs(local, repository("team/other"), [_BLOB])
    for method in ("GET", "HEAD"):
        headers = {"if-none-match": f'"{_BLOB.digest}"'}
        response = await wire.request(method, f"/v2/{NAME}/blobs/{_BLOB.digest}", headers=headers)
        assert response.status_code == 404


async def test_ns_is_ignored(wire: httpx.AsyncClient, local: Registry) -> None:
    """containerd adds ``ns=`` to every request at a mirror; no proxy is configured, so it changes nothing."""
    await push(local, _HERE, image(), "tag")
    for path in ("manifests/tag?ns=docker.io", f"blobs/{image().blobs[0].digest}?ns=docker.io"):
        assert (await wire.get(f"/v2/{NAME}/{path}")).status_code == 200


@pytest.mark.served
@pytest.mark.parametrize("colon", ["%3A", "%3a"])
async def test_an_escaped_digest_is_understood(url: str, local: Registry, colon: str) -> None:
    """Proxies and SDKs escape the colon; sent raw because clients would tidy it up."""
    content = image()
    await push(local, _HERE, content)
    for path in (f"manifests/{content.digest}", f"blobs/{content.blobs[0].digest}"):
        request = f"GET /v2/{NAME}/{path.replace(':', colon)} HTTP/1.1\r\nHost: x\r\n\r\n"
        assert (await raw_exchange(url, request.encode())).status == 200


@pytest.mark.parametrize(
    "name", ["a/blobs/uploads", "manifests/tags/list", "a__b/c--d/e.f", "a/b/c/d/e/f/g/h/i", "referrers/blobs", "v2/v2"]
)
async def test_names_that_look_like_the_api(wire: httpx.AsyncClient, local: Registry, name: str) -> None:
    """Paths are routed from the right."""
    await push(local, repository(name), image(), "latest")
    assert (await wire.get(f"/v2/{name}/manifests/latest")).content == image().manifest.content
    assert (await wire.get(f"/v2/{name}/blobs/{image().blobs[0].digest}")).status_code == 200
    assert (await wire.get(f"/v2/{name}/tags/list")).json() == {"name": name, "tags": ["latest"]}


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
async def test_both_ways_of_keeping_a_connection(url: str, local: Registry, connection: str) -> None:
    """Old Go clients close after every request, new ones keep alive."""
    await push(local, _HERE, image(), "tag")
    request = f"GET /v2/{NAME}/manifests/tag HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n"
    answer = await raw_exchange(url, request.encode())
    assert (answer.status, answer.body) == (200, image().manifest.content)
    assert (answer.header("connection") == "close") is (connection == "close")


async def test_docker_media_types_stand_beside_oci(wire: httpx.AsyncClient, local: Registry) -> None:
    """Docker schema 2 and OCI manifests live in one repository, and in one index."""
    mixed = index([image("one"), image("two", docker=True)])
    await push(local, _HERE, mixed, "mixed")
    for child in mixed.children:
        response = await wire.get(f"/v2/{NAME}/manifests/{child.digest}")
        assert response.headers["content-type"] == child.manifest.media_type
