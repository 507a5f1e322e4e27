"""A copy is the same image elsewhere: every byte, in an order that leaves nothing dangling."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from moorage.puller.errors import ImageError, NoMatchingPlatform, Unreachable
from moorage.puller.events import (
    BlobDone,
    BlobProgress,
    BlobSkipped,
    BlobStarted,
    Event,
    ManifestDone,
    Resolved,
    Retried,
)
from moorage.puller.layout import ImageLayout
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.transfer import Place, Wish, carry, copy_image
from moorage.registry.oci import (
    BlobStream,
    Descriptor,
    Digest,
    Manifest,
    ManifestUnknown,
    Platform,
    RepositoryName,
    Tag,
    TagOrDigest,
)
from moorage.registry.store import LocalRegistry
from moorage.storage_backends.memory import MemoryStore

from tests.content import Content, gallery, image, index, push, read_bytes, repository

_HERE, _THERE = repository("team/app"), repository("other/place")
_LATEST = Tag("latest")


class _Source(ImageLayout):
    """A layout that counts the manifests that are read."""

    reads = 0

    async def read_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Manifest:
        self.reads += 1
        return await super().read_manifest(repository, reference)


class _Shaky(LocalRegistry):
    """A registry whose blobs break off as often as a test says."""

    failures = 0

    @asynccontextmanager
    async def read_blob(
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[BlobStream]:
        async with super().read_blob(repository, digest, start=start, stop=stop) as stream:
            is_broken, self.failures = self.failures > 0, max(0, self.failures - 1)
            yield _Broken(stream) if is_broken else stream


class _Asked(LocalRegistry):
    """A registry that knows in which order it was asked for blobs."""

    asked: list[Digest]

    async def resolve_blob(self, repository: RepositoryName, digest: Digest, *, for_push: bool = False) -> Descriptor:
        self.asked.append(digest)
        return await super().resolve_blob(repository, digest, for_push=for_push)


class _Broken:
    """The first bytes of a blob, then nothing."""

    def __init__(self, stream: BlobStream) -> None:
        self.descriptor = stream.descriptor
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk[:100]
            raise Unreachable


@pytest.fixture
def source(tmp_path: Path) -> _Source:
    view = ImageLayout.of_registry(LayoutFiles(str(tmp_path / "source"), create=True), "localhost:5000")
    return _Source(view.files, view._names)


@pytest.fixture
def layout(tmp_path: Path) -> ImageLayout:
    return ImageLayout.of_registry(LayoutFiles(str(tmp_path / "destination"), create=True), "localhost:5000")


@pytest.fixture
async def registry() -> LocalRegistry:
    return await LocalRegistry.open(MemoryStore())


async def _assert_whole(place: Place, reference: TagOrDigest, content: Content) -> None:
    assert (await place.registry.read_manifest(place.repository, reference)).content == content.manifest.content
    for part in content.walk():
        found = await place.registry.read_manifest(place.repository, part.digest)
        assert found.content == part.manifest.content
        for blob in part.blobs:
            assert await read_bytes(place.registry, place.repository, blob.digest) == blob.content


def _unfinished(layout: ImageLayout) -> list[str]:
    folders = (os.path.join(layout.files.root, name) for name in ("ingests", "staging"))
    return [name for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)]


@pytest.mark.parametrize("content", [pytest.param(value, id=key) for key, value in gallery().items()])
async def test_every_kind_goes_round(
    source: _Source, registry: LocalRegistry, layout: ImageLayout, content: Content
) -> None:
    """Layout to registry to layout, with the same digests all the way."""
    await push(source, _HERE, content, "latest")
    there, back = Place(registry, _THERE), Place(layout, _HERE)
    assert (
        await copy_image(Place(source, _HERE), Wish(_LATEST, tags=[Tag("v1")]), there)
    ).descriptor.digest == content.digest
    await _assert_whole(there, Tag("v1"), content)
    assert (await copy_image(there, Wish(content.digest, tags=[_LATEST]), back)).descriptor == content.descriptor
    await _assert_whole(back, _LATEST, content)


async def test_the_biggest_blobs_go_first_and_are_told_in_the_order_of_the_image(source: _Source) -> None:
    content = index([image("small", size=500), image("big", size=5000)])
    await push(source, _HERE, content, "latest")
    registry = await _Asked.open(MemoryStore())
    registry.asked = []
    result = await copy_image(Place(source, _HERE), Wish(_LATEST), Place(registry, _THERE))
    blobs = [blob.descriptor for part in content.walk() for blob in part.blobs]
    assert registry.asked == [blob.digest for blob in sorted(blobs, key=lambda blob: -blob.size)]
    assert [blob.descriptor.digest for blob in result.blobs] == [blob.digest for blob in blobs]


async def test_the_story_is_told(source: _Source, registry: LocalRegistry) -> None:
    """What was found, each blob with its bytes, each manifest, children before their index."""
    content = index([image("one"), image("two")])
    await push(source, _HERE, content, "latest")
    events: list[Event] = []
    await copy_image(Place(source, _HERE), Wish(_LATEST), Place(registry, _THERE), on_event=events.append)
    blobs = {blob.digest for part in content.walk() for blob in part.blobs}
    first, manifests = events[0], [event.descriptor.digest for event in events if isinstance(event, ManifestDone)]
    assert isinstance(first, Resolved)
    assert (first.descriptor.digest, first.blobs) == (content.digest, len(blobs))
    for kind in (BlobStarted, BlobDone):
        assert {event.descriptor.digest for event in events if isinstance(event, kind)} == blobs
    assert sum(event.size for event in events if isinstance(event, BlobProgress)) == first.size
    assert manifests == [*(child.digest for child in content.children), content.digest]


async def test_what_is_there_is_not_sent_again(source: _Source, registry: LocalRegistry) -> None:
    """A second copy moves nothing."""
    await push(source, _HERE, image(), "latest")
    here, there = Place(source, _HERE), Place(registry, _THERE)
    await copy_image(here, Wish(_LATEST), there)
    events: list[Event] = []
    await copy_image(here, Wish(_LATEST, tags=[Tag("again")]), there, on_event=events.append)
    assert {event.reason for event in events if isinstance(event, BlobSkipped)} == {"exists"}
    assert not any(isinstance(event, BlobStarted) for event in events)


async def test_within_a_registry_blobs_are_mounted(registry: LocalRegistry) -> None:
    """No bytes move."""
    await push(registry, _HERE, image(), "latest")
    events: list[Event] = []
    there = Place(registry, _THERE)
    await copy_image(Place(registry, _HERE), Wish(_LATEST, tags=[_LATEST]), there, on_event=events.append)
    assert {event.reason for event in events if isinstance(event, BlobSkipped)} == {"mounted"}
    await _assert_whole(there, _LATEST, image())


async def test_a_platform_takes_one_image(source: _Source, registry: LocalRegistry) -> None:
    """The tag then names that image, also out of a nested index."""
    one, two = image("one"), image("two")
    await push(source, _HERE, index([index([one, two])]), "latest")
    here, there = Place(source, _HERE), Place(registry, _THERE)
    stored = await copy_image(here, Wish(_LATEST, tags=[_LATEST], platform=Platform("linux", "amd64")), there)
    assert stored.descriptor == one.descriptor
    with pytest.raises(ManifestUnknown):
        await registry.read_manifest(_THERE, two.digest)
    with pytest.raises(NoMatchingPlatform):
        await copy_image(here, Wish(_LATEST, platform=Platform("plan9", "mips")), there)


async def test_a_missing_image_is_missing(source: _Source, registry: LocalRegistry) -> None:
    """With the error of the source."""
    with pytest.raises(ManifestUnknown):
        await copy_image(Place(source, _HERE), Wish(_LATEST), Place(registry, _THERE))


async def test_a_broken_stream_starts_again(layout: ImageLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few times."""
    monkeypatch.setattr(carry, "_RETRY_DELAY", 0.001)
    source = await _Shaky.open(MemoryStore())
    await push(source, _HERE, image(), "latest")
    source.failures = 2
    there = Place(layout, _THERE)
    events: list[Event] = []
    await copy_image(Place(source, _HERE), Wish(_LATEST, tags=[_LATEST]), there, on_event=events.append)
    assert len([event for event in events if isinstance(event, Retried)]) == 2
    await _assert_whole(there, _LATEST, image())
    source.failures = 100
    await copy_image(Place(source, _HERE), Wish(_LATEST, tags=[Tag("x")]), there)  # nothing needs to be read
    await push(source, _HERE, image("another"), "another")
    with pytest.raises(Unreachable):
        await copy_image(Place(source, _HERE), Wish(Tag("another")), there)


async def test_a_failure_is_its_own_class_and_leaves_no_tag(source: _Source, layout: ImageLayout) -> None:
    """Not a group of errors; what else was under way is stopped, nothing unfinished stays."""
    content = image("large", layers=8, size=100_000)
    await push(source, _HERE, content, "latest")
    os.truncate(source.files.blob_path(content.blobs[3].digest), 5)
    with pytest.raises(ImageError, match="is 5 bytes"):
        await copy_image(Place(source, _HERE), Wish(_LATEST, tags=[_LATEST]), Place(layout, _THERE))
    with pytest.raises(ManifestUnknown):
        await layout.resolve_manifest(_THERE, _LATEST)
    assert _unfinished(layout) == []


async def test_a_cancelled_copy_leaves_nothing_unfinished(source: _Source, layout: ImageLayout) -> None:
    """At any moment."""
    await push(source, _HERE, image("large", layers=4, size=3_000_000), "latest")
    for delay in (0.0, 0.005, 0.02, 0.05):
        task = asyncio.ensure_future(
            copy_image(Place(source, _HERE), Wish(_LATEST, tags=[_LATEST]), Place(layout, _THERE))
        )
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert _unfinished(layout) == []


async def test_a_manifest_is_read_once(source: _Source, registry: LocalRegistry) -> None:
    """However many indexes name it (rule A17)."""
    shared = index([image("shared")])
    content = index([index([shared, image(n)]) for n in range(3)])
    await push(source, _HERE, content, "latest")
    source.reads = 0
    await copy_image(Place(source, _HERE), Wish(_LATEST), Place(registry, _THERE))
    assert source.reads == len({part.digest for part in content.walk()})


@pytest.mark.parametrize(("levels", "is_fine"), [(4, True), (5, False)])
async def test_four_levels_are_enough(source: _Source, registry: LocalRegistry, levels: int, is_fine: bool) -> None:
    """Deeper graphs are refused before anything moves."""
    content = image()
    for _ in range(levels - 1):
        content = index([content])
    await push(source, _HERE, content, "latest")
    if is_fine:
        await copy_image(Place(source, _HERE), Wish(_LATEST), Place(registry, _THERE))
    else:
        with pytest.raises(ImageError, match="levels"):
            await copy_image(Place(source, _HERE), Wish(_LATEST), Place(registry, _THERE))
        assert [name async for name in registry.list_repositories()] == []
