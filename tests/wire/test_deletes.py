"""Deleting over the wire (spec "Content Management"): visible at once, in this repository only."""

from __future__ import annotations

import httpx
import pytest
from moorage.registry.oci import Registry

from tests.content import Content, artifact, blob, gallery, image, push, push_blobs, repository
from tests.stage import ON_STAGE
from tests.wire.talk import NAME, assert_error

pytestmark = ON_STAGE

_HERE, _THERE = repository(NAME), repository("team/other")
_KINDS = [pytest.param(value, id=key) for key, value in gallery().items()]


async def assert_gone(wire: httpx.AsyncClient, path: str, code: str) -> None:
    """GET, HEAD and another DELETE all say 404."""
    assert_error(await wire.get(path), 404, code)
    assert (await wire.head(path)).status_code == 404
    assert_error(await wire.delete(path), 404, code)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_blob(wire: httpx.AsyncClient, local: Registry, algorithm: str) -> None:
    """202 without body, then gone; the other repository keeps it."""
    item = blob("deleted", algorithm=algorithm)
    for name in (_HERE, _THERE):
        await push_blobs(local, name, [item])
    response = await wire.delete(f"/v2/{NAME}/blobs/{item.digest}")
    assert (response.status_code, response.content) == (202, b"")
    await assert_gone(wire, f"/v2/{NAME}/blobs/{item.digest}", "BLOB_UNKNOWN")
    assert (await wire.get(f"/v2/{_THERE}/blobs/{item.digest}")).content == item.content


@pytest.mark.parametrize("content", _KINDS)
async def test_a_manifest_with_its_tags(wire: httpx.AsyncClient, local: Registry, content: Content) -> None:
    """By digest: every tag that names it goes along."""
    await push(local, _HERE, content, "a", "b")
    response = await wire.delete(f"/v2/{NAME}/manifests/{content.digest}")
    assert (response.status_code, response.content) == (202, b"")
    for reference in (content.digest, "a", "b"):
        await assert_gone(wire, f"/v2/{NAME}/manifests/{reference}", "MANIFEST_UNKNOWN")


async def test_a_tag_alone(wire: httpx.AsyncClient, local: Registry) -> None:
    """By tag: the manifest and its other tags stay."""
    await push(local, _HERE, image(), "a", "b")
    assert (await wire.delete(f"/v2/{NAME}/manifests/a")).status_code == 202
    await assert_gone(wire, f"/v2/{NAME}/manifests/a", "MANIFEST_UNKNOWN")
    for reference in ("b", str(image().digest)):
        assert (await wire.get(f"/v2/{NAME}/manifests/{reference}")).status_code == 200
    assert (await wire.get(f"/v2/{NAME}/tags/list")).json()["tags"] == ["b"]


async def test_everything_in_the_order_of_the_conformance_suite(wire: httpx.AsyncClient, local: Registry) -> None:
    """Tags, then manifests from the top, then blobs: each 202."""
    content = gallery()["nested index"]
    await push(local, _HERE, content, "top")
    assert (await wire.delete(f"/v2/{NAME}/manifests/top")).status_code == 202
    everything = list(dict.fromkeys(part.digest for part in content.walk()))
    for digest in reversed(everything):
        assert (await wire.delete(f"/v2/{NAME}/manifests/{digest}")).status_code == 202
    for item in dict.fromkeys(item.digest for part in content.walk() for item in part.blobs):
        assert (await wire.delete(f"/v2/{NAME}/blobs/{item}")).status_code == 202


async def test_a_needed_blob_is_405(wire: httpx.AsyncClient, local: Registry) -> None:
    """The detail names a manifest that needs it; Allow says what works; nothing is deleted."""
    await push(local, _HERE, image(), "a")
    for item in image().blobs:
        response = await wire.delete(f"/v2/{NAME}/blobs/{item.digest}")
        entry = assert_error(response, 405, "UNSUPPORTED")
        assert str(image().digest) in str(entry["detail"])
        assert response.headers["allow"] == "GET, HEAD"
        assert (await wire.get(f"/v2/{NAME}/blobs/{item.digest}")).content == item.content


async def test_a_blob_needed_in_another_repository_only(wire: httpx.AsyncClient, local: Registry) -> None:
    """Goes here, stays there."""
    await push(local, _THERE, image(), "a")
    await push_blobs(local, _HERE, image().blobs)
    for item in image().blobs:
        assert (await wire.delete(f"/v2/{NAME}/blobs/{item.digest}")).status_code == 202
        assert (await wire.get(f"/v2/{_THERE}/blobs/{item.digest}")).content == item.content


async def test_a_referrer_leaves_the_list(wire: httpx.AsyncClient, local: Registry) -> None:
    """At once."""
    signature = artifact(subject=image().descriptor)
    for content in (image(), signature):
        await push(local, _HERE, content)
    await wire.delete(f"/v2/{NAME}/manifests/{signature.digest}")
    assert (await wire.get(f"/v2/{NAME}/referrers/{image().digest}")).json()["manifests"] == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        pytest.param(f"/v2/{NAME}/blobs/{blob('no').digest}", "BLOB_UNKNOWN", id="blob"),
        pytest.param(f"/v2/{NAME}/manifests/{blob('no').digest}", "MANIFEST_UNKNOWN", id="manifest"),
        pytest.param(f"/v2/{NAME}/manifests/none", "MANIFEST_UNKNOWN", id="tag"),
        pytest.param("/v2/no/where/manifests/none", "MANIFEST_UNKNOWN", id="tag of no repository"),
        pytest.param(f"/v2/no/where/blobs/{blob('no').digest}", "BLOB_UNKNOWN", id="blob of no repository"),
        pytest.param(f"/v2/{NAME}/blobs/uploads/{'0' * 32}", "BLOB_UPLOAD_UNKNOWN", id="upload"),
    ],
)
async def test_what_is_not_there(wire: httpx.AsyncClient, local: Registry, path: str, code: str) -> None:
    """404 with the code of its kind."""
    await push(local, _HERE, image(), "a")
    assert_error(await wire.delete(path), 404, code)


@pytest.mark.parametrize("path", [f"/v2/{NAME}/blobs/sha256:bad", f"/v2/{NAME}/manifests/sha256:bad"])
async def test_a_bad_digest(wire: httpx.AsyncClient, path: str) -> None:
    """400."""
    assert_error(await wire.delete(path), 400, "DIGEST_INVALID")


async def test_what_was_deleted_may_come_back(wire: httpx.AsyncClient, local: Registry) -> None:
    """Manifest, tag and blobs, any number of times."""
    for _ in range(3):
        await push(local, _HERE, image(), "a")
        assert (await wire.get(f"/v2/{NAME}/manifests/a")).content == image().manifest.content
        await wire.delete(f"/v2/{NAME}/manifests/{image().digest}")
        for item in image().blobs:
            assert (await wire.delete(f"/v2/{NAME}/blobs/{item.digest}")).status_code == 202
