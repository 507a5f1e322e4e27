"""Pushing manifests over the wire (spec "Pushing Manifests"; conditional tag writes, which are ours)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from moorage.registry.oci import Digest, Manifest, Registry
from moorage.registry.oci.media_types import DOCKER_IMAGE, OCI_IMAGE, OCI_INDEX
from moorage.registry.oci.routes import MAX_TAGS
from moorage.registry.store import LocalRegistry
from moorage.registry.web.app import create_app
from moorage.storage_backends.memory import MemoryStore

from tests.content import Content, artifact, blob, gallery, image, index, nondistributable, push, push_blobs, repository
from tests.stage import ON_STAGE, Stage, bare_client
from tests.wire.talk import NAME, assert_error, in_chunks, put_manifest

pytestmark = ON_STAGE

_HERE = repository(NAME)
_KINDS = [pytest.param(value, id=key) for key, value in gallery().items()]


async def bring_needs(registry: Registry, content: Content) -> None:
    """Stores all that ``content`` needs, but not its manifest."""
    for child in content.children:
        await push(registry, _HERE, child)
    await push_blobs(registry, _HERE, content.blobs)


async def assert_created(wire: httpx.AsyncClient, response: httpx.Response, content: Content) -> None:
    """201, the digest, and a relative Location from which exact bytes and type come back."""
    assert response.status_code == 201, response.text
    assert response.headers["docker-content-digest"] == str(content.digest)
    assert response.headers["location"].startswith(f"/v2/{NAME}/manifests/")
    found = await wire.get(response.headers["location"])
    assert (found.status_code, found.content) == (200, content.manifest.content)
    assert found.headers["content-type"] == content.manifest.media_type


@pytest.mark.parametrize("content", _KINDS)
async def test_by_digest(wire: httpx.AsyncClient, local: Registry, content: Content) -> None:
    """Every kind, also of 3.9 MB, kept byte for byte."""
    await bring_needs(local, content)
    await assert_created(wire, await put_manifest(wire, content), content)


@pytest.mark.parametrize("content", [kind for kind in _KINDS if "sha512" not in str(kind.id)])
async def test_by_tag(wire: httpx.AsyncClient, local: Registry, content: Content) -> None:
    """The canonical digest names what a tag was pushed with."""
    await bring_needs(local, content)
    await assert_created(wire, await put_manifest(wire, content, "v1"), content)
    assert (await wire.get(f"/v2/{NAME}/manifests/v1")).content == content.manifest.content


async def test_without_content_length(wire: httpx.AsyncClient, local: Registry) -> None:
    """In HTTP chunks, as the conformance suite sends it."""
    content = image()
    await bring_needs(local, content)
    response = await wire.put(
        f"/v2/{NAME}/manifests/v1",
        content=in_chunks(content.manifest.content),
        headers={"content-type": content.manifest.media_type},
    )
    await assert_created(wire, response, content)


@pytest.mark.parametrize(
    "content_type",
    [OCI_IMAGE, f"{OCI_IMAGE};charset=utf-8", f"{OCI_IMAGE} ; charset=UTF-8; x=y", None],
)
async def test_parameters_of_the_content_type_are_ignored(
    wire: httpx.AsyncClient, local: Registry, content_type: str | None
) -> None:
    """And an absent one is told from the document."""
    content = image()
    await bring_needs(local, content)
    headers = {"content-type": content_type} if content_type is not None else {}
    response = await wire.put(f"/v2/{NAME}/manifests/v1", content=content.manifest.content, headers=headers)
    await assert_created(wire, response, content)


@pytest.mark.parametrize("content_type", [DOCKER_IMAGE, OCI_INDEX, "application/json", "text/html", "x", "a/b\u00e9"])
async def test_a_content_type_that_disagrees_is_refused(
    wire: httpx.AsyncClient, local: Registry, content_type: str
) -> None:
    """Rule A5: what is stored is served as what it is."""
    await bring_needs(local, image())
    response = await wire.put(
        f"/v2/{NAME}/manifests/v1",
        content=image().manifest.content,
        headers={b"content-type": content_type.encode("latin-1")},
    )
    assert_error(response, 400, "MANIFEST_INVALID")


async def test_schema_1_is_refused_with_a_reason(wire: httpx.AsyncClient) -> None:
    """Old clients learn what to do."""
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    response = await wire.put(
        f"/v2/{NAME}/manifests/v1", content=b'{"schemaVersion": 1}', headers={"content-type": kind}
    )
    assert "schema 2" in assert_error(response, 400, "MANIFEST_INVALID")["message"]


@pytest.mark.parametrize(
    "reference", ["sha256:baddigeststring", "sha256:", "md5:0123", f"sha256:{'A' * 64}", ":", "a:b"]
)
async def test_a_bad_digest_reference_is_refused(wire: httpx.AsyncClient, local: Registry, reference: str) -> None:
    """400, and no tag of that name appears."""
    await bring_needs(local, image())
    assert_error(await put_manifest(wire, image(), reference), 400, "DIGEST_INVALID")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_content_of_another_digest_is_refused(wire: httpx.AsyncClient, local: Registry, algorithm: str) -> None:
    """Two spaces more are another manifest (conformance: bad-digest-image)."""
    content = image(algorithm=algorithm)
    await bring_needs(local, content)
    manifest = Manifest(OCI_IMAGE, content.manifest.content + b"  ", content.digest)
    assert_error(await put_manifest(wire, Content(manifest)), 400, "DIGEST_INVALID")
    assert_error(await wire.get(f"/v2/{NAME}/manifests/{content.digest}"), 404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("count", [1, 2, 10, MAX_TAGS])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_tag_parameters(wire: httpx.AsyncClient, local: Registry, count: int, algorithm: str) -> None:
    """end-7b: every tag is answered in OCI-Tag and names the manifest."""
    content = image(algorithm=algorithm)
    await bring_needs(local, content)
    names = [f"t{number}" for number in range(count)]
    response = await put_manifest(wire, content, query="?" + "&".join(f"tag={name}" for name in names))
    await assert_created(wire, response, content)
    answered = [tag.strip() for line in response.headers.get_list("oci-tag") for tag in line.split(",")]
    assert answered == names
    for name in names:
        found = await wire.get(f"/v2/{NAME}/manifests/{name}")
        assert found.content == content.manifest.content
        assert found.headers["docker-content-digest"] == str(content.digest)


async def test_too_many_tag_parameters_are_414(wire: httpx.AsyncClient, local: Registry) -> None:
    """And none is made."""
    await bring_needs(local, image())
    query = "?" + "&".join(f"tag=t{number}" for number in range(MAX_TAGS + 1))
    assert_error(await put_manifest(wire, image(), query=query), 414, "TAG_INVALID")
    assert (await wire.get(f"/v2/{NAME}/manifests/t0")).status_code == 404


async def test_a_bad_tag_among_good_ones_refuses_all(wire: httpx.AsyncClient, local: Registry) -> None:
    """Nothing is half done."""
    await bring_needs(local, image())
    assert_error(await put_manifest(wire, image(), query="?tag=good&tag=.bad"), 400, "TAG_INVALID")
    for reference in ("good", str(image().digest)):
        assert (await wire.get(f"/v2/{NAME}/manifests/{reference}")).status_code == 404


@pytest.mark.parametrize("reference", [None, "signature"], ids=["by digest", "by tag"])
async def test_a_subject_is_confirmed(wire: httpx.AsyncClient, local: Registry, reference: str | None) -> None:
    """OCI-Subject tells clients that they need no fallback tag, whether the subject exists or not."""
    subject = image("subject")
    content = artifact(subject=subject.descriptor)
    await bring_needs(local, content)
    response = await put_manifest(wire, content, reference)
    await assert_created(wire, response, content)
    assert response.headers["oci-subject"] == str(subject.digest)


async def test_without_a_subject_nothing_is_confirmed(wire: httpx.AsyncClient, local: Registry) -> None:
    """Neither OCI-Subject nor OCI-Tag."""
    await bring_needs(local, image())
    response = await put_manifest(wire, image(), "v1")
    assert "oci-subject" not in response.headers
    assert "oci-tag" not in response.headers


async def test_an_absent_blob_is_named(wire: httpx.AsyncClient) -> None:
    """404 MANIFEST_BLOB_UNKNOWN; the detail lists every digest that is missing."""
    entry = assert_error(await put_manifest(wire, image(), "v1"), 404, "MANIFEST_BLOB_UNKNOWN")
    assert all(str(item.digest) in str(entry["detail"]) for item in image().blobs)


async def test_an_absent_child_is_named(wire: httpx.AsyncClient, local: Registry) -> None:
    """The same for an index."""
    one, two = image("one"), image("two")
    await push(local, _HERE, one)
    entry = assert_error(await put_manifest(wire, index([one, two]), "v1"), 404, "MANIFEST_BLOB_UNKNOWN")
    assert str(two.digest) in str(entry["detail"])
    assert str(one.digest) not in str(entry["detail"])


async def test_foreign_layers_are_not_missed(wire: httpx.AsyncClient, local: Registry) -> None:
    """Non-distributable layers are never pushed."""
    await bring_needs(local, nondistributable())
    await assert_created(wire, await put_manifest(wire, nondistributable(), "v1"), nondistributable())


@pytest_asyncio.fixture(loop_scope="session")
async def sparse(stage: Stage, store: MemoryStore) -> AsyncIterator[httpx.AsyncClient]:
    """A client at a server that allows sparse images."""
    stage.show(create_app(await LocalRegistry.open(store, allow_sparse=True)))
    async with bare_client(stage.url) as client:
        yield client


async def test_a_sparse_image_is_taken_where_allowed(sparse: httpx.AsyncClient) -> None:
    """The manifest is there, the blobs stay 404."""
    await assert_created(sparse, await put_manifest(sparse, image(), "v1"), image())
    for item in image().blobs:
        assert_error(await sparse.get(f"/v2/{NAME}/blobs/{item.digest}"), 404, "BLOB_UNKNOWN")


async def test_a_sparse_index_is_taken_where_allowed(sparse: httpx.AsyncClient) -> None:
    """The index is there, the child stays 404."""
    content = index([image("one"), image("two")])
    await assert_created(sparse, await put_manifest(sparse, content, "v1"), content)
    assert_error(await sparse.get(f"/v2/{NAME}/manifests/{image('one').digest}"), 404, "MANIFEST_UNKNOWN")


async def test_a_sparse_image_opens_no_blob_of_another_repository(sparse: httpx.AsyncClient) -> None:
    """Rule T7: naming what only others hold does not make it readable."""
    for item in image().blobs:
        await sparse.post(f"/v2/team/other/blobs/uploads/?digest={item.digest}", content=item.content)
    await assert_created(sparse, await put_manifest(sparse, image(), "v1"), image())
    for item in image().blobs:
        assert_error(await sparse.get(f"/v2/{NAME}/blobs/{item.digest}"), 404, "BLOB_UNKNOWN")


async def test_if_none_match_creates_once(wire: httpx.AsyncClient, local: Registry) -> None:
    """412 for the second, and the tag stays."""
    for seed in ("one", "two"):
        await bring_needs(local, image(seed))
    assert (await put_manifest(wire, image("one"), "v1", if_none_match="*")).status_code == 201
    assert_error(await put_manifest(wire, image("two"), "v1", if_none_match="*"), 412, "PRECONDITION_FAILED")
    assert (await wire.get(f"/v2/{NAME}/manifests/v1")).content == image("one").manifest.content


async def test_if_match_moves_from_the_value_it_knows(wire: httpx.AsyncClient, local: Registry) -> None:
    """The ETag of a GET is what If-Match takes."""
    for seed in ("one", "two", "three"):
        await bring_needs(local, image(seed))
    await put_manifest(wire, image("one"), "v1")
    etag = (await wire.get(f"/v2/{NAME}/manifests/v1")).headers["etag"]
    assert (await put_manifest(wire, image("two"), "v1", if_match=etag)).status_code == 201
    assert_error(await put_manifest(wire, image("three"), "v1", if_match=etag), 412, "PRECONDITION_FAILED")
    assert (await wire.get(f"/v2/{NAME}/manifests/v1")).content == image("two").manifest.content


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"if_match": '"sha256:x"'}, id="no digest"),
        pytest.param({"if_match": f'W/"{image("one").digest}"'}, id="weak"),
        pytest.param({"if_match": f'"{image("one").digest}", "{image("two").digest}"'}, id="several"),
        pytest.param({"if_match": "nonsense"}, id="not quoted"),
        pytest.param({"if_none_match": f'"{image("one").digest}"'}, id="If-None-Match with a value"),
        pytest.param({"if_none_match": "*", "if_match": f'"{image("one").digest}"'}, id="both"),
    ],
)
async def test_a_condition_nobody_can_judge_fails(
    wire: httpx.AsyncClient, local: Registry, headers: dict[str, str]
) -> None:
    """It never falls back to writing without the condition."""
    await push(local, _HERE, image("one"), "v1")
    await bring_needs(local, image("two"))
    assert_error(await put_manifest(wire, image("two"), "v1", **headers), 412, "PRECONDITION_FAILED")
    assert (await wire.get(f"/v2/{NAME}/manifests/v1")).content == image("one").manifest.content


async def test_a4_of_two_racing_creators_one_gets_201(wire: httpx.AsyncClient, local: Registry) -> None:
    """Rule A4: also by ``?tag=``, and ``latest`` is no exception."""
    contents = [image(number) for number in range(8)]
    for content in contents:
        await bring_needs(local, content)
    puts = [
        put_manifest(
            wire, content, if_none_match="*", **({"query": "?tag=latest"} if number % 2 else {"reference": "latest"})
        )
        for number, content in enumerate(contents)
    ]
    statuses = sorted(response.status_code for response in await asyncio.gather(*puts))
    assert statuses == [201, *[412] * 7]


async def test_a_blob_pushed_for_the_manifest_only_elsewhere_is_missing(
    wire: httpx.AsyncClient, local: Registry
) -> None:
    """A manifest naming a blob that only another repository holds is refused, and the blob stays 404 here."""
    await push(local, repository("team/other"), image())
    assert_error(await put_manifest(wire, image(), "v1"), 404, "MANIFEST_BLOB_UNKNOWN")
    assert (await wire.get(f"/v2/{NAME}/blobs/{image().blobs[0].digest}")).status_code == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"schemaVersion": 2}', blob("noise").content])
async def test_broken_json_is_refused(wire: httpx.AsyncClient, body: bytes) -> None:
    """400 MANIFEST_INVALID, whatever it is."""
    manifest = Manifest(OCI_IMAGE, body, Digest.of(body))
    assert_error(await put_manifest(wire, Content(manifest)), 400, "MANIFEST_INVALID")
    assert_error(await put_manifest(wire, Content(manifest), "v1"), 400, "MANIFEST_INVALID")
