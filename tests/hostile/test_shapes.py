"""Digests, names, tags, sizes and paths of every wrong shape: a 4xx with an OCI error, and nothing changes."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from moorage.registry.oci import Digest, Manifest, Registry
from moorage.registry.oci.media_types import OCI_IMAGE

from tests.content import Content, artifact, blob, image, json_bytes, push, repository
from tests.hostile.conftest import Canary
from tests.stage import ON_STAGE
from tests.unit.test_oci_digest import WRONG as WRONG_DIGESTS
from tests.unit.test_oci_manifest import A5_POLYGLOTS, A5_TEXTS, A6_DESCRIPTORS
from tests.unit.test_oci_names import BAD_NAMES, BAD_TAGS
from tests.unit.test_oci_routes import HOSTILE_PATHS
from tests.wire.talk import NAME, RawAnswer, assert_error, put_manifest, raw_exchange, start

pytestmark = ON_STAGE

_BLOB = blob("shapes")
_THERE = image("there")


def assert_refused(answer: RawAnswer) -> None:
    """A client error; where it has a body, an OCI error."""
    assert 400 <= answer.status < 500, answer
    if answer.body:
        assert json.loads(answer.body)["errors"][0]["code"]


async def _send(url: str, method: str, target: str, *, body: bytes = b"x") -> RawAnswer:
    """One request with this target, byte for byte (latin-1 where it is not ASCII)."""
    raw = target.encode("utf-8", "surrogatepass")
    head = f" HTTP/1.1\r\nHost: x\r\nContent-Type: {OCI_IMAGE}\r\nContent-Length: {len(body)}\r\n\r\n"
    return await raw_exchange(url, method.encode() + b" " + raw + head.encode() + body, method=method)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"])
async def test_a8_no_hostile_path_does_anything(url: str, canary: Canary, method: str) -> None:
    """Rule A8: two hundred paths by every method; what no parser takes may close the connection."""
    before = canary()
    for path in HOSTILE_PATHS:
        try:
            answer = await _send(url, method, f"{path}?digest={_BLOB.digest}", body=_BLOB.content)
        except (EOFError, ConnectionError):
            continue
        assert 400 <= answer.status < 500, (path, answer)
    assert canary() == before


@pytest.mark.parametrize("raw", WRONG_DIGESTS)
async def test_a7_no_wrong_digest_does_anything(url: str, wire: httpx.AsyncClient, canary: Canary, raw: str) -> None:
    """Rule A7: in every place where a digest stands, as it is and escaped."""
    location = await start(wire)
    before = canary()
    escaped = "".join(f"%{byte:02X}" for byte in raw.encode("utf-8", "surrogatepass"))
    for text in (raw.replace("\n", "%0A").replace("\0", "%00").replace(" ", "%20"), escaped):
        if not text:
            continue
        for method, target in (
            ("GET", f"/v2/{NAME}/blobs/{text}"),
            ("DELETE", f"/v2/{NAME}/blobs/{text}"),
            ("GET", f"/v2/{NAME}/referrers/{text}"),
            ("POST", f"/v2/{NAME}/blobs/uploads/?digest={text}"),
            ("POST", f"/v2/{NAME}/blobs/uploads/?mount={text}&from={NAME}"),
            ("PUT", f"{location}?digest={text}"),
        ):
            assert_refused(await _send(url, method, target))
        # Where a tag may stand, text without a colon is none the worse for it; a name in the path is never decoded.
        if ":" in text:
            assert_refused(await _send(url, "PUT", f"/v2/{NAME}/manifests/{text}", body=_THERE.manifest.content))
    assert canary() == before


@pytest.mark.parametrize("raw", BAD_NAMES)
async def test_a8_no_bad_name_does_anything(url: str, canary: Canary, raw: str) -> None:
    """Rule A8: in the path and in ``from=``."""
    before = canary()
    text = raw.replace("\n", "%0A").replace("\0", "%00").replace(" ", "%20")
    for method, target in (
        ("POST", f"/v2/{text}/blobs/uploads/?digest={_BLOB.digest}"),
        ("PUT", f"/v2/{text}/manifests/v1"),
        ("GET", f"/v2/{text}/tags/list"),
        ("DELETE", f"/v2/{text}/manifests/there"),
    ):
        try:
            assert_refused(await _send(url, method, target, body=_BLOB.content))
        except (EOFError, ConnectionError):
            continue  # the parser of HTTP did not take it
    assert canary() == before
    if raw and "%" not in raw:  # a query is decoded, so an escaped slash is a slash there
        answer = await _send(url, "POST", f"/v2/{NAME}/blobs/uploads/?mount={_BLOB.digest}&from={text}", body=b"")
        assert answer.status == 400


@pytest.mark.parametrize("raw", BAD_TAGS)
async def test_a21_no_bad_tag_does_anything(wire: httpx.AsyncClient, canary: Canary, raw: str) -> None:
    """Rule A21: as ``tag=`` and as ``last=``; no line end reaches a header."""
    before = canary()
    response = await wire.put(
        f"/v2/{NAME}/manifests/{_THERE.digest}",
        params={"tag": raw},
        content=_THERE.manifest.content,
        headers={"content-type": OCI_IMAGE},
    )
    assert_error(response, 400, "TAG_INVALID")
    if raw:
        assert_error(await wire.get(f"/v2/{NAME}/tags/list", params={"last": raw}), 400, "TAG_INVALID")
    assert canary() == before


_SPLITTERS = [
    "\r\nX-Evil: 1",
    "\nX-Evil: 1",
    "\rX-Evil: 1",
    "\u010aX-Evil: 1",
    "\u2028",
    "\0",
    "é",
    '"; X-Evil: 1',
    "<>",
]


@pytest.mark.parametrize("raw", _SPLITTERS)
async def test_a21_no_parameter_splits_an_answer(wire: httpx.AsyncClient, local: Registry, raw: str) -> None:
    """Rule A21: whatever a client puts into a query, no header of ours breaks."""
    here = repository(NAME)
    for number in range(3):
        await push(
            local, here, artifact(number, artifact_type="application/x", subject=_THERE.descriptor), f"t{number}"
        )
    for path, params in (
        (f"/v2/{NAME}/referrers/{_THERE.digest}", {"artifactType": f"application/x{raw}", "n": "1"}),
        (f"/v2/{NAME}/tags/list", {"n": "1", "x": raw}),
        ("/v2/_catalog", {"n": "1", "last": raw}),
    ):
        response = await wire.get(path, params=params)
        assert response.status_code in (200, 400)
        assert "x-evil" not in response.headers
    for path, params in (
        (f"/v2/{NAME}/blobs/uploads/", {"from": raw, "mount": str(_BLOB.digest)}),
        (f"/v2/{NAME}/blobs/uploads/", {"digest-algorithm": raw}),
        (f"/v2/{NAME}/blobs/uploads/", {"ns": raw}),
    ):
        response = await wire.post(path, params=params)
        assert response.status_code in (202, 400)
        assert "x-evil" not in response.headers


@pytest.mark.parametrize(
    "kind", ["text/html\x0bX-Evil:1", "text/html\tx", "a/b c", '"a/b"', "a/b,c/d", "\u00ff/b", "a/" + "b" * 5000]
)
async def test_a20_a_strange_content_type_is_refused(url: str, canary: Canary, kind: str) -> None:
    """Rule A20: the type is taken by grammar, because it will be sent to others."""
    before = canary()
    head = f"PUT /v2/{NAME}/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
    body = _THERE.manifest.content
    answer = await raw_exchange(url, f"{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body)
    assert_refused(answer)
    assert canary() == before


@pytest.mark.parametrize("length", ["-1", "+5", "5x", "0x5", "1e3", "5, 5", "5 5", "", "9" * 40, "\u0665"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a12_a_content_length_that_is_no_number(url: str, canary: Canary, length: str, method: str) -> None:
    """Rule A12: refused before anything is believed."""
    before = canary()
    target = f"/v2/{NAME}/blobs/uploads/?digest={_BLOB.digest}" if method == "POST" else f"/v2/{NAME}/manifests/v1"
    request = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode() + b"12345"
    try:
        answer = await raw_exchange(url, request, end=True)
        assert 400 <= answer.status < 500
    except (EOFError, ConnectionError):
        pass  # closed without an answer is an answer
    assert canary() == before


@pytest.mark.parametrize(("document", "media_type"), A5_POLYGLOTS)
async def test_a5_no_polyglot_is_stored(
    wire: httpx.AsyncClient, canary: Canary, document: Any, media_type: str
) -> None:
    """Rule A5: by tag and by digest."""
    raw = json_bytes(document)
    before = canary()
    for reference in ("v1", str(Digest.of(raw))):
        response = await put_manifest(wire, Content(Manifest(media_type, raw, Digest.of(raw))), reference)
        assert_error(response, 400, "MANIFEST_INVALID")
    assert canary() == before


@pytest.mark.parametrize("raw", A5_TEXTS)
async def test_a5_no_json_with_two_readings_is_stored(wire: httpx.AsyncClient, canary: Canary, raw: bytes) -> None:
    """Rule A5: with and without a Content-Type."""
    before = canary()
    assert_error(await put_manifest(wire, Content(Manifest(OCI_IMAGE, raw, Digest.of(raw)))), 400, "MANIFEST_INVALID")
    assert_error(await wire.put(f"/v2/{NAME}/manifests/v1", content=raw), 400, "MANIFEST_INVALID")
    assert canary() == before


@pytest.mark.parametrize("bad", A6_DESCRIPTORS)
async def test_a6_no_bad_descriptor_is_stored(wire: httpx.AsyncClient, canary: Canary, bad: object) -> None:
    """Rule A6: 400 MANIFEST_INVALID, whatever the descriptor looks like."""
    document = json.loads(_THERE.manifest.content)
    document["layers"] = [bad]
    raw = json_bytes(document)
    before = canary()
    assert_error(await put_manifest(wire, Content(Manifest(OCI_IMAGE, raw, Digest.of(raw)))), 400, "MANIFEST_INVALID")
    assert canary() == before


@pytest.mark.parametrize("name", ["a_b", "a__b", "a.b", "a-b", "a--b"])
async def test_a22_names_are_never_patterns(wire: httpx.AsyncClient, local: Registry, name: str) -> None:
    """Rule A22: ``_`` and ``.`` match nothing but themselves."""
    for other in ("axb", "axxb", "a/b", "ab", name):
        await push(
            local, repository(other), artifact(other, subject=_THERE.descriptor), f"tag-of-{other.replace('/', '-')}"
        )
    assert (await wire.get(f"/v2/{name}/tags/list")).json()["tags"] == [f"tag-of-{name}"]
    assert len((await wire.get(f"/v2/{name}/referrers/{_THERE.digest}")).json()["manifests"]) == 1
    found = (await wire.get("/v2/_catalog")).json()["repositories"]
    assert sorted(found) == sorted({"axb", "axxb", "a/b", "ab", name, NAME})


@pytest.mark.parametrize("upload", ["0" * 32, "..", "%2e%2e", "a/b", "A" * 5000, "x.y", "%00", "-", "'", "*"])
@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
async def test_no_strange_upload_id_does_anything(url: str, canary: Canary, upload: str, method: str) -> None:
    """It is unknown, or no path of ours."""
    before = canary()
    target = f"/v2/{NAME}/blobs/uploads/{upload}?digest={_BLOB.digest}"
    assert_refused(await _send(url, method, target, body=_BLOB.content))
    assert canary() == before
