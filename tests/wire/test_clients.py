"""What each real client sends, request by request, as recorded on the wire: pushes, and what they insist on.

Law: one test per client, in the client's own order and form; what it would choke on is asserted where it looks.
"""

from __future__ import annotations

import re

import httpx
import pytest
from moorage.registry.oci import Registry
from moorage.registry.oci.media_types import DOCKER_IMAGE, OCI_IMAGE

from tests.content import Content, image, push, push_blobs, repository
from tests.stage import ON_STAGE
from tests.wire.talk import NAME, assert_error, assert_session, in_chunks, raw_exchange

pytestmark = ON_STAGE

_HERE = repository(NAME)
_UPLOADS = f"/v2/{NAME}/blobs/uploads/"
_IMAGE = image("client", size=3000)
_OCTETS = {"content-type": "application/octet-stream"}


def _escaped(digest: object) -> str:
    return str(digest).replace(":", "%3A")


async def _assert_pushed(wire: httpx.AsyncClient, content: Content, tag: str = "v1") -> None:
    """The image is whole under its tag."""
    response = await wire.get(f"/v2/{NAME}/manifests/{tag}")
    assert response.content == content.manifest.content
    for item in content.blobs:
        assert (await wire.get(f"/v2/{NAME}/blobs/{item.digest}")).content == item.content


async def _put_tag(wire: httpx.AsyncClient, content: Content, tag: str = "v1") -> httpx.Response:
    response = await wire.put(
        f"/v2/{NAME}/manifests/{tag}",
        content=content.manifest.content,
        headers={"content-type": content.manifest.media_type},
    )
    assert response.status_code == 201
    return response


async def test_docker_with_graph_drivers(wire: httpx.AsyncClient) -> None:
    """HEAD, POST with an escaped mount, chunked PATCH without any length or range, empty PUT, HEAD again."""
    content = image("docker", docker=True, size=3000)
    assert (await wire.get("/v2/")).status_code == 200
    for item in content.blobs:
        path = f"/v2/{NAME}/blobs/{item.digest}"
        assert (await wire.head(path)).status_code == 404
        response = await wire.post(f"{_UPLOADS}?from=team%2Fbase&mount={_escaped(item.digest)}")
        location = assert_session(response, 202, None)
        assert response.headers["docker-upload-uuid"]
        response = await wire.patch(location, content=in_chunks(item.content))
        assert response.status_code == 202
        first, last = re.fullmatch(r"(\d+)-(\d+)", response.headers["range"]).groups()  # type: ignore[union-attr]
        assert int(first) <= int(last), "docker reads %d-%d and fails when it runs backwards"
        join = "&" if "?" in response.headers["location"] else "?"
        response = await wire.put(f"{response.headers['location']}{join}digest={_escaped(item.digest)}", content=b"")
        assert response.status_code == 201
        head = await wire.head(path)
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(item.content)))
    response = await _put_tag(wire, content)
    assert response.headers["docker-content-digest"] == str(content.digest)
    await _assert_pushed(wire, content)
    assert (await wire.get(f"/v2/{NAME}/manifests/v1")).headers["content-type"] == DOCKER_IMAGE


async def test_docker_pulls(wire: httpx.AsyncClient, local: Registry) -> None:
    """HEAD of the tag with six Accept lines, then everything by digest."""
    await push(local, _HERE, _IMAGE, "v1")
    accept = [("accept", kind) for kind in (DOCKER_IMAGE, OCI_IMAGE, "application/json", "*/*")]
    head = await wire.head(f"/v2/{NAME}/manifests/v1", headers=accept)
    digest = head.headers["docker-content-digest"]
    assert head.headers["content-length"] == str(len(_IMAGE.manifest.content))
    response = await wire.get(f"/v2/{NAME}/manifests/{digest}", headers=accept)
    assert response.content == _IMAGE.manifest.content


async def test_containerd(wire: httpx.AsyncClient, local: Registry) -> None:
    """HEAD, POST with a raw unescaped mount, one PUT with the body; ``ns`` and odd encodings on everything."""
    headers = {"accept-encoding": "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"}
    await push_blobs(local, repository("team/base"), _IMAGE.blobs[:1])
    for number, item in enumerate(_IMAGE.blobs):
        assert (await wire.head(f"/v2/{NAME}/blobs/{item.digest}?ns=r.example", headers=headers)).status_code == 404
        query = f"mount={item.digest}&from=team/base&ns=r.example"
        response = await wire.post(f"{_UPLOADS}?{query}", headers=headers)
        if number == 0:
            assert response.status_code == 201
            continue
        location = assert_session(response, 202, None)
        response = await wire.put(f"{location}?digest={_escaped(item.digest)}", content=item.content, headers=_OCTETS)
        assert (response.status_code, response.headers["docker-content-digest"]) == (201, str(item.digest))
    assert (await wire.head(f"/v2/{NAME}/manifests/v1?ns=r.example")).status_code == 404
    await _put_tag(wire, _IMAGE)
    await _assert_pushed(wire, _IMAGE)


async def test_containerd_pulls_in_parallel(url: str, wire: httpx.AsyncClient, local: Registry) -> None:
    """Open-ended ranges, closed after one chunk: no harm to the next request."""
    big = image("big", layers=1, size=4 * 2**20)
    await push(local, _HERE, big, "v1")
    layer = big.blobs[-1]
    path = f"/v2/{NAME}/blobs/{layer.digest}"
    for start in range(0, 4 * 2**20, 2**20):
        async with wire.stream("GET", path, headers={"range": f"bytes={start}-"}) as response:
            assert response.status_code == 206
            assert response.headers["content-range"] == f"bytes {start}-{4 * 2**20 - 1}/{4 * 2**20}"
            async for chunk in response.aiter_raw():
                assert chunk == layer.content[start : start + len(chunk)]
                break
    assert (await wire.get(path)).content == layer.content
    assert (await wire.get(f"/v2/{NAME}/manifests/v1", headers={"range": "bytes=0-"})).status_code == 200


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
async def test_skopeo_podman_buildah(wire: httpx.AsyncClient, local: Registry, connection: str) -> None:
    """HEAD twice, HEAD in the source, mount, else cancel and start again; PATCH with a length; exact 202 and 201."""
    headers = {"docker-distribution-api-version": "registry/2.0", "connection": connection}
    await push_blobs(local, repository("team/base"), _IMAGE.blobs[:1])
    for number, item in enumerate(_IMAGE.blobs):
        for _ in range(2):
            assert (await wire.head(f"/v2/{NAME}/blobs/{item.digest}", headers=headers)).status_code == 404
        source = await wire.head(f"/v2/team/base/blobs/{item.digest}", headers=headers)
        query = f"from=team%2Fbase&mount={_escaped(item.digest)}"
        response = await wire.post(f"{_UPLOADS}?{query}", headers=headers)
        assert (source.status_code, response.status_code) == ((200, 201) if number == 0 else (404, 202))
        if response.status_code == 201:
            continue
        assert (await wire.delete(response.headers["location"], headers=headers)).status_code == 204
        location = (await wire.post(_UPLOADS, headers=headers)).headers["location"]
        response = await wire.patch(location, content=item.content, headers=headers | _OCTETS)
        assert response.status_code == 202
        location = response.headers["location"]
        response = await wire.put(f"{location}?digest={_escaped(item.digest)}", headers=headers | _OCTETS)
        assert response.status_code == 201
    await _put_tag(wire, _IMAGE)
    await _assert_pushed(wire, _IMAGE)


async def test_crane_ko_kaniko_bazel(wire: httpx.AsyncClient) -> None:
    """POST with a JSON type and an empty body, ``origin``; PATCH whole, empty PUT that must be 201."""
    for item in _IMAGE.blobs:
        query = f"mount={_escaped(item.digest)}&from=team%2Fbase&origin=r.example"
        response = await wire.post(f"{_UPLOADS}?{query}", headers={"content-type": "application/json"}, content=b"")
        location = assert_session(response, 202, None)
        assert not location.startswith("http"), "crane refuses a Location on a private address of another host"
        response = await wire.patch(location, content=item.content)
        assert response.status_code == 202
        response = await wire.put(f"{response.headers['location']}?digest={_escaped(item.digest)}")
        assert response.status_code == 201
    await _put_tag(wire, _IMAGE)
    listed = await wire.get(f"/v2/{NAME}/tags/list?n=1000")
    assert listed.json()["tags"] == ["v1"]
    await _assert_pushed(wire, _IMAGE)


async def test_oras_and_helm(wire: httpx.AsyncClient) -> None:
    """HEAD, POST, PUT with the body and ``&digest=`` behind whatever the Location had; 201 exactly."""
    for item in _IMAGE.blobs:
        assert (await wire.head(f"/v2/{NAME}/blobs/{item.digest}")).status_code == 404
        location = assert_session(await wire.post(_UPLOADS), 202, None)
        response = await wire.put(location, params={"digest": str(item.digest)}, content=item.content, headers=_OCTETS)
        assert response.status_code == 201
    await _put_tag(wire, _IMAGE)
    await _assert_pushed(wire, _IMAGE)


async def test_oras_py_in_chunks(wire: httpx.AsyncClient) -> None:
    """Chunks with Content-Range, each to the Location that the one before answered."""
    for item in _IMAGE.blobs:
        location = assert_session(await wire.post(_UPLOADS), 202, None)
        for start in range(0, len(item.content), 1000):
            part = item.content[start : start + 1000]
            headers = {"content-range": f"{start}-{start + len(part) - 1}"} | _OCTETS
            response = await wire.patch(location, content=part, headers=headers)
            assert response.status_code == 202
            location = response.headers["location"]
        assert (await wire.put(f"{location}?digest={item.digest}")).status_code == 201
    await _put_tag(wire, _IMAGE)
    await _assert_pushed(wire, _IMAGE)


async def test_regctl(wire: httpx.AsyncClient, local: Registry) -> None:
    """Anonymous mount, PUT with the body; after a failure chunks with Content-Range and recovery from 416 by GET."""
    await push_blobs(local, repository("team/base"), _IMAGE.blobs[:1])
    for number, item in enumerate(_IMAGE.blobs):
        response = await wire.post(f"{_UPLOADS}?mount={_escaped(item.digest)}")
        if number == 0:
            assert response.status_code == 201
            continue
        location = assert_session(response, 202, None)
        half = len(item.content) // 2
        response = await wire.patch(location, content=item.content[:half], headers={"content-range": f"0-{half - 1}"})
        # The answer got lost: it sends the same chunk again.
        response = await wire.patch(location, content=item.content[:half], headers={"content-range": f"0-{half - 1}"})
        assert_error(response, 416, "RANGE_INVALID")
        assert_session(response, 416, half - 1)
        location = assert_session(await wire.get(location), 204, half - 1)
        rest = item.content[half:]
        headers = {"content-range": f"{half}-{half + len(rest) - 1}"}
        response = await wire.patch(location, content=rest, headers=headers)
        assert_session(response, 202, len(item.content) - 1)
        assert (await wire.put(f"{location}?digest={_escaped(item.digest)}")).status_code == 201
    await _put_tag(wire, _IMAGE)
    cancelled = assert_session(await wire.post(_UPLOADS), 202, None)
    assert (await wire.delete(cancelled)).status_code in (202, 204)
    await _assert_pushed(wire, _IMAGE)


async def test_cosign_pushes_a_signature_tag_and_a_referrer(wire: httpx.AsyncClient, local: Registry) -> None:
    """``sha256-<hex>.sig`` is a tag like any other, and the fallback list of referrers too."""
    await push(local, _HERE, _IMAGE, "v1")
    for tag in (f"sha256-{_IMAGE.digest.hex}.sig", f"sha256-{_IMAGE.digest.hex}"):
        await _put_tag(wire, _IMAGE, tag)
        assert (await wire.head(f"/v2/{NAME}/manifests/{tag}")).status_code == 200


async def test_curl_of_an_old_script(wire: httpx.AsyncClient, local: Registry) -> None:
    """No Accept at all, or only ``*/*``: the stored manifest comes."""
    await push(local, _HERE, _IMAGE, "v1")
    for headers in ({}, {"accept": "*/*"}):
        response = await wire.get(f"/v2/{NAME}/manifests/v1", headers=headers)
        assert (response.status_code, response.headers["content-type"]) == (200, OCI_IMAGE)


async def test_a_tls_client_at_a_plain_port_fails_at_once(url: str) -> None:
    """skopeo, docker and crane try TLS first: an answer or a closed connection, but no waiting."""
    hello = bytes.fromhex("16030100c8010000c40303") + b"\0" * 193
    try:
        answer = await raw_exchange(url, hello)
    except (EOFError, ConnectionError):
        return
    assert answer.status == 400
