"""What every answer has in common: error shape, methods, headers for browsers, liveness beside the API."""

from __future__ import annotations

import httpx
import pytest
from moorage.registry.oci import Registry

from tests.content import blob, gallery, image, push, push_blobs, repository
from tests.stage import ON_STAGE
from tests.wire.talk import NAME, assert_error, raw_exchange, start

pytestmark = ON_STAGE

_HERE = repository(NAME)
_BLOB = blob("answers")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        pytest.param("GET", "/v2/team/app/unknown/x", 404, "NOT_FOUND", id="no such endpoint"),
        pytest.param("GET", "/v2/nothing", 404, "NOT_FOUND", id="nothing below v2"),
        pytest.param("GET", "/nothing", 404, "NOT_FOUND", id="nothing beside v2"),
        pytest.param("GET", "/v2/Team/manifests/x", 400, "NAME_INVALID", id="bad name"),
        pytest.param("GET", f"/v2/{NAME}/manifests/.x", 400, "TAG_INVALID", id="bad tag"),
        pytest.param("GET", f"/v2/{NAME}/blobs/x", 400, "DIGEST_INVALID", id="bad digest"),
        pytest.param("POST", f"/v2/{NAME}/manifests/x", 405, "UNSUPPORTED", id="bad method"),
        pytest.param("POST", "/healthz", 405, "UNSUPPORTED", id="bad method beside v2"),
        pytest.param("PATCH", f"/v2/{NAME}/blobs/{_BLOB.digest}", 405, "UNSUPPORTED", id="PATCH of a blob"),
        pytest.param("DELETE", f"/v2/{NAME}/tags/list", 405, "UNSUPPORTED", id="DELETE of a list"),
        pytest.param("GET", f"/v2/{NAME}/blobs/uploads/", 405, "UNSUPPORTED", id="GET of all uploads"),
    ],
)
async def test_every_refusal_has_the_shape_of_the_specification(
    wire: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    """JSON with code, message and detail, also for 404 and 405."""
    response = await wire.request(method, path)
    assert_error(response, status, code)
    assert response.headers["docker-distribution-api-version"] == "registry/2.0"


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (f"/v2/{NAME}/manifests/x", "GET, HEAD, PUT, DELETE"),
        (f"/v2/{NAME}/blobs/{_BLOB.digest}", "GET, HEAD, DELETE"),
        (f"/v2/{NAME}/blobs/uploads/", "POST"),
        (f"/v2/{NAME}/blobs/uploads/{'0' * 32}", "GET, PATCH, PUT, DELETE"),
        (f"/v2/{NAME}/tags/list", "GET"),
        ("/v2/_catalog", "GET"),
        ("/v2/", "GET, HEAD"),
    ],
)
async def test_405_says_what_is_allowed(wire: httpx.AsyncClient, path: str, allow: str) -> None:
    """RFC 9110 section 15.5.6."""
    response = await wire.options(path)
    assert_error(response, 405, "UNSUPPORTED")
    assert response.headers["allow"] == allow


@pytest.mark.parametrize("method", ["_HELPER", "get", "GETT", "PROPFIND", "TRACE", "CONNECT"])
async def test_a9_methods_are_spelled_out(url: str, method: str) -> None:
    """Rule A9: nothing is looked up by the method's name."""
    answer = await raw_exchange(url, f"{method} /v2/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.status in (400, 405)


@pytest.mark.parametrize("host", ["evil.example", "x:1", "[::1]:5", "127.0.0.1"])
async def test_a9_the_host_header_decides_nothing(url: str, local: Registry, host: str) -> None:
    """Rule A9: Locations are relative, whatever the client calls us."""
    request = f"POST /v2/{NAME}/blobs/uploads/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"
    answer = await raw_exchange(url, request.encode())
    assert answer.status == 202
    assert (answer.header("location") or "").startswith(f"/v2/{NAME}/blobs/uploads/")


@pytest.mark.parametrize("host", ["x/v2/?", "x?", "a b", "a\tb", "x#y", "u@h", "x\\y", "", "x:y", "x:99999999"])
async def test_a9_a_host_that_is_none_gets_no_content(url: str, host: str) -> None:
    """Rule A9: it is refused, or at least never seen in an answer."""
    answer = await raw_exchange(url, f"GET /v2/{NAME}/tags/list HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.status in (400, 404)
    assert not host or host.encode() not in answer.body


async def test_a20_content_of_users_is_never_a_page(wire: httpx.AsyncClient, local: Registry) -> None:
    """Rule A20: bytes, not sniffed, sandboxed."""
    page = blob("page", media_type="text/html")
    await push_blobs(local, _HERE, [page])
    for method in ("GET", "HEAD"):
        response = await wire.request(method, f"/v2/{NAME}/blobs/{page.digest}")
        assert response.headers["content-type"] == "application/octet-stream"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert response.headers["cross-origin-resource-policy"] == "same-origin"
    ranged = await wire.get(f"/v2/{NAME}/blobs/{page.digest}", headers={"range": "bytes=0-9"})
    assert ranged.headers["content-security-policy"] == "sandbox; default-src 'none'"


async def test_a20_manifests_and_errors_are_not_sniffed(wire: httpx.AsyncClient, local: Registry) -> None:
    """Rule A20: every answer says nosniff."""
    await push(local, _HERE, image(), "a")
    for path in ("/v2/", f"/v2/{NAME}/manifests/a", f"/v2/{NAME}/manifests/b", f"/v2/{NAME}/tags/list", "/nothing"):
        assert (await wire.get(path)).headers["x-content-type-options"] == "nosniff"


async def test_content_types_carry_no_parameters(wire: httpx.AsyncClient, local: Registry) -> None:
    """Clients compare them as text."""
    for number, content in enumerate(gallery().values()):
        await push(local, _HERE, content, f"t{number}")
    paths = [f"/v2/{NAME}/manifests/t{number}" for number in range(len(gallery()))]
    for path in (*paths, f"/v2/{NAME}/tags/list", f"/v2/{NAME}/referrers/{_BLOB.digest}", "/v2/", "/v2/_catalog"):
        assert ";" not in (await wire.get(path)).headers["content-type"]


async def test_head_answers_without_a_body_keep_the_connection_clean(url: str) -> None:
    """An error to a HEAD has headers only; the next request on the connection is answered."""
    missing = f"HEAD /v2/{NAME}/manifests/none HTTP/1.1\r\nHost: x\r\n\r\n"
    ping = "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await raw_exchange(url, (missing + ping).encode(), method="HEAD")
    assert answer.status == 404
    assert int(answer.header("content-length") or 0) > 0


async def test_expect_100_continue(url: str) -> None:
    """curl waits for it with large bodies."""
    head = (
        f"POST /v2/{NAME}/blobs/uploads/?digest={_BLOB.digest} HTTP/1.1\r\nHost: x\r\n"
        f"Expect: 100-continue\r\nContent-Length: {len(_BLOB.content)}\r\n\r\n"
    )
    answer = await raw_exchange(url, head.encode() + _BLOB.content)
    assert answer.status == 201


async def test_a_refused_upload_needs_no_body(url: str) -> None:
    """Expect: 100-continue to a bad digest: the final status comes before the body is sent."""
    head = (
        f"POST /v2/{NAME}/blobs/uploads/?digest=bad HTTP/1.1\r\nHost: x\r\n"
        "Expect: 100-continue\r\nContent-Length: 1000000\r\n\r\n"
    )
    assert (await raw_exchange(url, head.encode())).status == 400


async def test_liveness_and_readiness_stand_beside_the_api(wire: httpx.AsyncClient) -> None:
    """For load balancers."""
    for path in ("/healthz", "/readyz"):
        assert (await wire.get(path)).status_code == 200


async def test_upload_ids_are_unguessable(wire: httpx.AsyncClient) -> None:
    """Rule A15: long, and never twice."""
    found = {(await start(wire)).rpartition("/")[2] for _ in range(20)}
    assert len(found) == 20
    assert all(len(upload) >= 22 for upload in found)
