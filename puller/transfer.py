"""Copies images over the ``Registry`` protocol: pull, push and mirror are one function with different ends.

Law of order: blobs, then the manifests that need them, children before their index, tags with the last one; so a copy
that breaks off leaves nothing that points at something missing.
Law of bytes: manifests go as they came, so digests stay. The destination verifies every blob.
Law of graphs: each manifest is visited once, at most 4 levels and 10,000 descriptors deep (rule A17).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from moorage.puller.errors import ImageError
from moorage.puller.events import (
    BlobDone,
    BlobProgress,
    BlobSkipped,
    BlobStarted,
    ManifestDone,
    OnEvent,
    Resolved,
    ignore,
)
from moorage.puller.platforms import choose
from moorage.registry.oci import (
    BlobUnknown,
    Descriptor,
    Digest,
    Manifest,
    Platform,
    Registry,
    RepositoryName,
    Tag,
    TagOrDigest,
    Unavailable,
    Unsupported,
)
from moorage.registry.oci.media_types import IMAGE_TYPES, INDEX_TYPES

__all__ = ["Place", "copy_image", "find_image"]

_MAX_DEPTH = 4
_MAX_DESCRIPTORS = 10_000
_PARALLEL = 4
_ATTEMPTS = 3
_RETRY_DELAY = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """A repository of a registry."""

    registry: Registry
    repository: RepositoryName


@dataclass(frozen=True, slots=True)
class _Graph:
    """All that a copy moves: manifests in the order to push them, the wanted one last, and the blobs they need."""

    manifests: tuple[Manifest, ...]
    blobs: tuple[Descriptor, ...]


async def copy_image(
    source: Place,
    reference: TagOrDigest,
    destination: Place,
    *,
    tags: Sequence[Tag] = (),
    platform: Platform | None = None,
    on_event: OnEvent = ignore,
) -> Descriptor:
    """Makes the image, and all below it, readable at ``destination`` under ``tags``; returns what the tags name there.

    Args:
        platform: takes one image out of an index; None copies whatever the reference names, indexes whole.
        on_event: is called with every event, in this task's thread.

    Raises:
        ManifestUnknown: the source has no such image.
        NoMatchingPlatform: its index has none for ``platform``.
        ImageError: the graph is deeper or larger than the limits.
        OciError: what either side refused.
    """
    manifest = await find_image(source, reference, platform)
    graph = await _walk(source, manifest)
    on_event(Resolved(str(reference), manifest.descriptor, len(graph.blobs), sum(blob.size for blob in graph.blobs)))
    await _for_each(graph.blobs, _Mover(source, destination, on_event).move)
    for child in graph.manifests[:-1]:
        await destination.registry.push_manifest(destination.repository, child)
        on_event(ManifestDone(child.descriptor))
    stored = await destination.registry.push_manifest(destination.repository, manifest, tags=tags)
    on_event(ManifestDone(stored))
    return stored


async def find_image(source: Place, reference: TagOrDigest, platform: Platform | None) -> Manifest:
    """The manifest that ``reference`` names, or the one for ``platform`` in the index that it names.

    Raises:
        ManifestUnknown: the source has no such image.
        NoMatchingPlatform: the index has none for ``platform``.
    """
    manifest = await source.registry.read_manifest(source.repository, reference)
    for _ in range(_MAX_DEPTH):
        if platform is None or manifest.media_type not in INDEX_TYPES:
            return manifest
        chosen = choose(manifest.document.manifests, platform)
        manifest = await source.registry.read_manifest(source.repository, chosen.digest)
    raise ImageError(f"indexes nested deeper than {_MAX_DEPTH} levels")


async def _walk(source: Place, root: Manifest) -> _Graph:
    """Reads every manifest below ``root`` once."""
    manifests: dict[Digest, Manifest] = {}
    blobs: dict[Digest, Descriptor] = {}
    count = 0

    async def visit(manifest: Manifest, depth: int) -> None:
        nonlocal count
        document = manifest.document
        count += len(document.blobs) + len(document.manifests)
        if depth > _MAX_DEPTH or count > _MAX_DESCRIPTORS:
            raise ImageError(f"more than {_MAX_DEPTH} levels of indexes or {_MAX_DESCRIPTORS} descriptors")
        blobs.update((blob.digest, blob) for blob in document.blobs)
        for child in document.manifests:
            if child.media_type not in IMAGE_TYPES | INDEX_TYPES:
                blobs[child.digest] = child  # build caches list their layers like this
            elif child.digest not in manifests:
                await visit(await source.registry.read_manifest(source.repository, child.digest), depth + 1)
        manifests[manifest.digest] = manifest

    await visit(root, 1)
    return _Graph(tuple(manifests.values()), tuple(blobs.values()))


@dataclass(frozen=True, slots=True)
class _Mover:
    """Brings single blobs from source to destination."""

    source: Place
    destination: Place
    on_event: OnEvent

    async def move(self, blob: Descriptor) -> None:
        """The blob is at the destination when this returns."""
        if await self._exists(blob):
            self.on_event(BlobSkipped(blob, "exists"))
        elif await self._mount(blob):
            self.on_event(BlobSkipped(blob, "mounted"))
        else:
            await self._carry(blob)
            self.on_event(BlobDone(blob))

    async def _exists(self, blob: Descriptor) -> bool:
        try:
            await self.destination.registry.resolve_blob(self.destination.repository, blob.digest, for_push=True)
        except BlobUnknown:
            return False
        return True

    async def _mount(self, blob: Descriptor) -> bool:
        if self.source.registry is not self.destination.registry:
            return False
        try:
            await self.destination.registry.mount_blob(
                self.destination.repository, blob.digest, source=self.source.repository
            )
        except (BlobUnknown, Unsupported):
            return False
        return True

    async def _carry(self, blob: Descriptor) -> None:
        """Sends the bytes; after a broken connection from the start again, a few times."""
        for attempt in range(1, _ATTEMPTS + 1):
            self.on_event(BlobStarted(blob))
            try:
                await self._carry_once(blob)
            except Unavailable:
                if attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(_RETRY_DELAY * attempt)
            else:
                return

    async def _carry_once(self, blob: Descriptor) -> None:
        async with self.source.registry.read_blob(self.source.repository, blob.digest) as content:
            counted = self._counted(blob, content)
            await self.destination.registry.push_blob(self.destination.repository, blob, counted)

    async def _counted(self, blob: Descriptor, content: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        async for chunk in content:
            self.on_event(BlobProgress(blob, len(chunk)))
            yield chunk


async def _for_each(blobs: Iterable[Descriptor], move: Callable[[Descriptor], Awaitable[None]]) -> None:
    """Moves the blobs, a few at a time; the first failure stops the rest and is what the caller sees."""
    limit = asyncio.Semaphore(_PARALLEL)

    async def run(blob: Descriptor) -> None:
        async with limit:
            await move(blob)

    try:
        async with asyncio.TaskGroup() as group:
            for blob in blobs:
                group.create_task(run(blob))
    except BaseExceptionGroup as failures:
        raise _first(failures)  # noqa: B904 ("from" would overwrite the failure's own cause)


def _first(failure: BaseException) -> BaseException:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
