"""What a copy asks a registry, sends it and leaves alone; and that a plan says it before and does nothing."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from moorage.puller.credentials import FixedKeychain
from moorage.puller.errors import ImageError
from moorage.puller.layout import ImageLayout
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.remote import RemoteRegistry
from moorage.puller.transfer import CopyResult, Place, Plan, StoredNames, Wish, copy_image, plan_copy
from moorage.puller.transport import RetryPolicy
from moorage.registry.oci import (
    BlobUnknown,
    Denied,
    Digest,
    Manifest,
    ManifestUnknown,
    Platform,
    Registry,
    RepositoryName,
    Tag,
)
from moorage.registry.oci.media_types import OCI_INDEX
from moorage.registry.store import LocalRegistry
from moorage.registry.testing import Drop, LoopbackRegistry, Refuse, Slow
from moorage.storage_backends.memory import MemoryStore

from tests.content import Content, artifact, blob, chunked, image, index, nondistributable, push, read_bytes, repository

_HERE, _THERE, _BASE = repository("team/app"), repository("other/place"), repository("team/base")
_LATEST = Tag("latest")
_FAST = RetryPolicy(attempts=2, first_delay=0.001, longest_delay=0.01)


@asynccontextmanager
async def _remote(registry: LoopbackRegistry) -> AsyncIterator[RemoteRegistry]:
    async with RemoteRegistry.connect(registry.host, keychain=FixedKeychain(None), retry=_FAST) as remote:
        yield remote


@pytest.fixture
def layout(tmp_path: Path) -> ImageLayout:
    return ImageLayout.of_registry(LayoutFiles(str(tmp_path / "layout"), create=True), "localhost:5000")


async def _copy(
    source: Registry, content: Content, destination: Registry, *, name: RepositoryName = _THERE, **wish: object
) -> CopyResult:
    """Puts the content into the source and copies it to the destination's ``latest``."""
    await push(source, _HERE, content, "latest")
    wanted = Wish(_LATEST, tags=[_LATEST], **wish)  # type: ignore[arg-type]
    return await copy_image(Place(source, _HERE), wanted, Place(destination, name))


def _asked(registry: LoopbackRegistry) -> list[tuple[str, str]]:
    return [(request.method, request.path.rpartition("/")[2]) for request in registry.requests]


def _writes(registry: LoopbackRegistry) -> list[str]:
    return [request.method for request in registry.requests if request.method not in ("GET", "HEAD")]


async def test_a_second_push_writes_nothing(registry: LoopbackRegistry, layout: ImageLayout) -> None:
    """Neither blobs nor manifests, nor a tag that names the image already."""
    content = index([image("one"), image("two")])
    async with _remote(registry) as remote:
        first = await _copy(layout, content, remote)
        assert {blob.action for blob in first.blobs} == {"moved"}
        registry.forget_requests()
        second = await _copy(layout, content, remote)
    assert {blob.action for blob in second.blobs} == {"exists"}
    assert (second.moved, second.descriptor) == (0, first.descriptor)
    assert _writes(registry) == []


async def test_only_the_tag_that_differs_is_written(registry: LoopbackRegistry, layout: ImageLayout) -> None:
    """One PUT of the manifest moves it."""
    async with _remote(registry) as remote:
        await _copy(layout, image("old"), remote)
        await _copy(layout, image("new"), remote)
        registry.forget_requests()
        await _copy(layout, image("old"), remote)
        assert _writes(registry) == ["PUT"]
        assert (await remote.resolve_manifest(_THERE, _LATEST)).digest == image("old").digest


async def test_a_result_says_how_each_blob_came(registry: LoopbackRegistry, layout: ImageLayout) -> None:
    """Moved, with bytes; mounted, with the repository; or there before."""
    async with _remote(registry) as remote:
        result = await _copy(layout, image(), remote, name=_HERE)
        assert result.moved == sum(blob.descriptor.size for blob in result.blobs) > 0
        source, wish = Place(remote, _HERE), Wish(_LATEST, tags=[_LATEST])
        mounted = await copy_image(source, wish, Place(remote, _THERE))
        assert {(blob.action, blob.origin, blob.moved) for blob in mounted.blobs} == {("mounted", str(_HERE), 0)}
        assert [manifest.digest for manifest in mounted.manifests] == [image().digest]


async def test_what_the_store_knows_is_mounted(registry: LoopbackRegistry, layout: ImageLayout) -> None:
    """A name in the store says that a repository of that registry has the image's blobs."""
    async with _remote(registry) as remote:
        await _copy(layout, image(), remote, name=_BASE)
        store = ImageLayout.of_registry(layout.files, registry.host)
        await push(store, _BASE, image(), "pulled")
        registry.forget_requests()
        result = await _copy(layout, image(), remote, names=StoredNames(layout.files, registry.host))
        assert {(blob.action, blob.origin) for blob in result.blobs} == {("mounted", str(_BASE))}
        for blob in image().blobs:
            assert await read_bytes(remote, _THERE, blob.digest) == blob.content
    assert all("base" in request.query for request in registry.requests if request.method == "POST")


async def test_a_wrong_hint_costs_only_a_question(registry: LoopbackRegistry, layout: ImageLayout) -> None:
    """The registry no longer has it there: it is sent."""
    store = ImageLayout.of_registry(layout.files, registry.host)
    await push(store, _BASE, image(), "gone")
    async with _remote(registry) as remote:
        result = await _copy(layout, image(), remote, names=StoredNames(layout.files, registry.host))
    assert {blob.action for blob in result.blobs} == {"moved"}


@pytest.mark.parametrize("is_first", [True, False], ids=["all is new", "half is there"])
async def test_a_plan_foretells_the_copy(registry: LoopbackRegistry, layout: ImageLayout, is_first: bool) -> None:
    """And only asks."""
    one, two = image("one"), image("two")
    async with _remote(registry) as remote:
        if not is_first:
            await _copy(layout, one, remote)
        await push(layout, _HERE, index([one, two]), "latest")
        wish, source, there = Wish(_LATEST, tags=[_LATEST]), Place(layout, _HERE), Place(remote, _THERE)
        registry.forget_requests()
        plan = await plan_copy(source, wish, there)
        assert _writes(registry) == []
        done = await copy_image(source, wish, there)
        assert _foretold(plan) == {(str(blob.descriptor.digest), blob.action) for blob in done.blobs}
        assert (plan.moved, plan.descriptor, plan.tags) == (done.moved, done.descriptor, (_LATEST,))
        assert len(plan.manifests) == (3 if is_first else 2)
        again = await plan_copy(source, wish, there)
        assert (again.moved, again.manifests, again.tags) == (0, (), ())


def _foretold(plan: Plan) -> set[tuple[str, str]]:
    words = {"exists": "exists", "mount": "mounted", "move": "moved"}
    return {(str(blob.descriptor.digest), words[blob.action]) for blob in plan.blobs}


async def test_a_plan_foretells_mounts(registry: LoopbackRegistry, layout: ImageLayout) -> None:
    """With the repository."""
    async with _remote(registry) as remote:
        await _copy(layout, image(), remote, name=_HERE)
        registry.forget_requests()
        plan = await plan_copy(Place(remote, _HERE), Wish(_LATEST), Place(remote, _THERE))
        assert {(blob.action, blob.origin) for blob in plan.blobs} == {("mount", str(_HERE))}
        assert (plan.moved, _writes(registry)) == (0, [])


async def test_an_index_with_a_missing_part_is_an_error(registry: LoopbackRegistry, layout: ImageLayout) -> None:
    """That names it; one platform can be had."""
    one, two = image("one"), image("two")
    content = index([one, two])
    await push(layout, _HERE, content, "latest")
    layout.files.delete_blob(two.digest)
    async with _remote(registry) as remote:
        with pytest.raises(ImageError, match=f"lacks {two.digest}.*choose one platform"):
            await copy_image(Place(layout, _HERE), Wish(_LATEST), Place(remote, _THERE))
        assert _writes(registry) == []
        wish = Wish(_LATEST, platform=Platform("linux", "amd64"))
        assert (await copy_image(Place(layout, _HERE), wish, Place(remote, _THERE))).descriptor == one.descriptor


async def test_foreign_layers_stay_unless_asked_for(registry: LoopbackRegistry, layout: ImageLayout) -> None:
    """They are said to be left out."""
    content, foreign = nondistributable(), blob(("foreign", "foreign"), 500)
    await layout.push_blob(_HERE, foreign.descriptor, chunked(foreign.content))
    assert str(foreign.digest) == _layers(content)[-1]["digest"]
    async with _remote(registry) as remote:
        result = await _copy(layout, content, remote)
        assert [layer.digest for layer in result.left_out] == [foreign.digest]
        with pytest.raises(BlobUnknown):
            await remote.resolve_blob(_THERE, foreign.digest)
        result = await _copy(layout, content, remote, foreign=True)
        assert result.left_out == ()
        assert await read_bytes(remote, _THERE, foreign.digest) == foreign.content


def _layers(content: Content) -> list[dict[str, str]]:
    layers: list[dict[str, str]] = json.loads(content.manifest.content)["layers"]
    return layers


async def _signed() -> tuple[LocalRegistry, Content, list[Content]]:
    """An image, its signature, and the signature's timestamp: a chain of referrers; and cosign's tag."""
    source, content = await LocalRegistry.open(MemoryStore()), image()
    signature = artifact(subject=content.descriptor)
    timestamp = artifact(subject=signature.descriptor)
    tagged = image("signature of cosign")
    await push(source, _HERE, content, "latest")
    await push(source, _HERE, signature)
    await push(source, _HERE, timestamp)
    await push(source, _HERE, tagged, f"sha256-{content.digest.hex}.sig")
    return source, content, [signature, timestamp, tagged]


async def test_referrers_come_along_on_demand(registry: LoopbackRegistry) -> None:
    """Referrers of referrers too, and what cosign tagged."""
    source, content, others = await _signed()
    wish = Wish(_LATEST, tags=[_LATEST])
    async with _remote(registry) as remote:
        await copy_image(Place(source, _HERE), wish, Place(remote, _THERE))
        with pytest.raises(ManifestUnknown):
            await remote.read_manifest(_THERE, others[0].digest)
        everything = Wish(_LATEST, tags=[_LATEST], referrers=True)
        result = await copy_image(Place(source, _HERE), everything, Place(remote, _THERE))
        assert {manifest.digest for manifest in result.manifests} == {content.digest, *(o.digest for o in others)}
        assert await _referrers(remote, content.digest) == [others[0].digest]
        assert await _referrers(remote, others[0].digest) == [others[1].digest]
        tagged = await remote.read_manifest(_THERE, Tag(f"sha256-{content.digest.hex}.sig"))
        assert tagged.digest == others[2].digest


async def _referrers(registry: Registry, subject: Digest) -> list[Digest]:
    return [referrer.digest async for referrer in registry.list_referrers(_THERE, subject)]


async def test_referrers_of_an_old_registry_are_found_by_their_tag(layout: ImageLayout) -> None:
    """Also where a registry that has the API now holds lists from before."""
    source, content = await LocalRegistry.open(MemoryStore()), image()
    await push(source, _HERE, content, "latest")
    unlinked = artifact()  # says no subject: only the list of the tag leads to it
    await push(source, _HERE, unlinked)
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [unlinked.descriptor.to_json()]}
    listed = Manifest.of(json.dumps(document).encode(), OCI_INDEX)
    await source.push_manifest(_HERE, listed, tags=[Tag(f"sha256-{content.digest.hex}")])
    there = Place(layout, _THERE)
    await copy_image(Place(source, _HERE), Wish(_LATEST, tags=[_LATEST], referrers=True), there)
    assert (await layout.read_manifest(_THERE, unlinked.digest)).content == unlinked.manifest.content


async def test_the_image_comes_after_its_signatures(registry: LoopbackRegistry) -> None:
    """Whoever sees the tag can verify."""
    source, content, _ = await _signed()
    registry.inject(Refuse(403), method="PUT", path=f"*/manifests/sha256-{content.digest.hex}.sig", times=None)
    async with _remote(registry) as remote:
        with pytest.raises(Denied):
            await copy_image(Place(source, _HERE), Wish(_LATEST, tags=[_LATEST], referrers=True), Place(remote, _THERE))
        with pytest.raises(ManifestUnknown):
            await remote.resolve_manifest(_THERE, _LATEST)


async def test_questions_are_asked_side_by_side(registry: LoopbackRegistry, layout: ImageLayout) -> None:
    """Slow answers are waited for once, not one after the other."""
    registry.inject(Slow(delay=0.3), method="HEAD", times=None)
    async with _remote(registry) as remote:
        await _copy(layout, image("wide", layers=12, size=1000), remote)
    asked = [method for method, _ in _asked(registry)]
    assert asked.index("PUT") > [i for i, method in enumerate(asked) if method == "HEAD"][4]


async def test_a_layout_is_filled_in_parts(registry: LoopbackRegistry, layout: ImageLayout) -> None:
    """A connection that breaks costs what was lost, not the blob."""
    noise = random.Random(1).randbytes(6_000_000)
    registry.add_image("team/app:v1", {"noise": noise})
    registry.inject(Drop(after=4_000_000), method="GET", path="*/blobs/*", times=2)  # the config is shorter
    async with _remote(registry) as remote:
        result = await copy_image(Place(remote, _HERE), Wish(Tag("v1"), tags=[_LATEST]), Place(layout, _THERE))
    assert (await layout.resolve_manifest(_THERE, _LATEST)).digest == result.descriptor.digest
    assert {blob.action for blob in result.blobs} == {"moved"}
    assert any("range" in request.headers for request in registry.requests)


async def test_a_damaged_blob_is_blamed_on_us(registry: LoopbackRegistry, layout: ImageLayout) -> None:
    """The registry only says that the digest is wrong."""
    content = image()
    await push(layout, _HERE, content, "latest")
    _damage(Path(layout.files.blob_path(content.blobs[-1].digest)))
    async with _remote(registry) as remote:
        with pytest.raises(ImageError, match="is damaged here"):
            await copy_image(Place(layout, _HERE), Wish(_LATEST, tags=[_LATEST]), Place(remote, _THERE))
        with pytest.raises(ManifestUnknown):
            await remote.resolve_manifest(_THERE, _LATEST)


def _damage(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))
