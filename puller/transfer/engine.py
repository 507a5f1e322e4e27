"""Copies images over the ``Registry`` protocol: pull, push and mirror are one function with different ends.

Law of order: blobs, then the manifests that need them, children before their index, referrers, and the image itself
with its tags last; so a copy that breaks off leaves nothing that points at something missing.
Law of bytes: manifests go as they came, so digests stay. The destination verifies every blob.
Law of silence: what the destination has is not sent again, neither blobs nor manifests, nor a tag that names this
manifest already. A manifest with a subject is, because only that tells its registry's lists of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from moorage.puller.events import Finished, ManifestDone, OnEvent, Resolved, Times, ignore
from moorage.puller.layout import ImageLayout
from moorage.puller.remote import RemoteRegistry
from moorage.puller.transfer.carry import Carrier
from moorage.puller.transfer.crowd import for_each
from moorage.puller.transfer.graph import Place
from moorage.puller.transfer.results import BlobResult, CopyResult
from moorage.puller.transfer.selection import Selection, Wish, is_there, missing_tags, select
from moorage.registry.oci import Manifest, Tag
from moorage.registry.oci.media_types import IMAGE_TYPES

if TYPE_CHECKING:
    from moorage.puller.fetch.engine import Fetcher

__all__ = ["Expecting", "copy_image"]

_PARALLEL = 16
"""Questions to the destination at a time; uploads have a limit of their own."""


@runtime_checkable
class Expecting(Protocol):
    """A destination that must know what comes before it comes."""

    def receiving(self, selection: Selection) -> AbstractAsyncContextManager[None]:
        """A block in which all of the selection is pushed; what it brought counts when the block ends well."""


async def copy_image(source: Place, wish: Wish, destination: Place, *, on_event: OnEvent = ignore) -> CopyResult:
    """Makes the image, and all below it, readable at ``destination`` under the tags of ``wish``.

    Args:
        on_event: is called with every event, in this task's thread.

    Raises:
        ManifestUnknown: the source has no such image.
        NoMatchingPlatform: its index has none for the platform.
        ImageError: the graph is deeper or larger than the limits, or incomplete, or a file of ours is damaged.
        OciError: what either side refused.
    """
    began = time.monotonic()
    selection = await select(source, wish)
    root, blobs = selection.root, selection.blobs
    size = sum(blob.size for blob in blobs)
    on_event(Resolved(wish.name or str(wish.reference), root.descriptor, len(blobs), size, blobs))
    async with _receiving(destination, selection), _fetching(source, destination, on_event) as fetcher:
        carrier = Carrier(source, destination, wish.known(source, destination), on_event, fetcher)
        by_size = sorted(blobs, key=lambda blob: -blob.size)  # a big one begun last would be alone in the end
        moved = await for_each(by_size, carrier.carry, limit=_PARALLEL)
        await _Writer(destination, on_event).write(selection, wish.tags)
    return _finish(selection, moved, time.monotonic() - began, on_event)


def _receiving(destination: Place, selection: Selection) -> AbstractAsyncContextManager[None]:
    if isinstance(destination.registry, Expecting):
        return destination.registry.receiving(selection)
    return nullcontext()


def _fetching(source: Place, destination: Place, on_event: OnEvent) -> AbstractAsyncContextManager[Fetcher | None]:
    """What fills a layout from a registry; for other ends nothing."""
    there = destination.registry
    if isinstance(source.registry, RemoteRegistry) and isinstance(there, ImageLayout):
        from moorage.puller.fetch.engine import Fetcher  # noqa: PLC0415 (a push starts without it)

        return Fetcher(source.registry, source.repository, there.files, retry=source.registry.retry, on_event=on_event)
    return nullcontext()


def _finish(selection: Selection, blobs: list[BlobResult], seconds: float, on_event: OnEvent) -> CopyResult:
    manifests = tuple(manifest.descriptor for manifest in (*selection.others, selection.root))
    order = {blob.digest: place for place, blob in enumerate(selection.blobs)}
    blobs = sorted(blobs, key=lambda blob: order[blob.descriptor.digest])
    result = CopyResult(selection.root.descriptor, manifests, tuple(blobs), selection.left_out, seconds)
    on_event(Finished(result.descriptor, result.moved, seconds, Times(network=sum(blob.seconds for blob in blobs))))
    return result


class _Writer:
    """Writes manifests in an order that registries insist on."""

    def __init__(self, destination: Place, on_event: OnEvent) -> None:
        self._place = destination
        self._on_event = on_event

    async def write(self, selection: Selection, tags: Sequence[Tag]) -> None:
        """All of them, the root and its tags last."""
        images = [manifest for manifest in selection.others if _stands_alone(manifest)]
        await for_each(images, self._place_one, limit=_PARALLEL)
        for manifest in selection.others:
            if not _stands_alone(manifest):
                await self._place_one(manifest)
        for tag, manifest in selection.tagged.items():
            await self._tag(manifest, [tag])
        await self._tag(selection.root, tags)

    async def _place_one(self, manifest: Manifest) -> None:
        await self._tag(manifest, ())

    async def _tag(self, manifest: Manifest, tags: Sequence[Tag]) -> None:
        """Makes the manifest, and each of the tags, readable; says nothing where all that is so."""
        has_subject = manifest.document.subject is not None
        missing = list(tags) if has_subject else await missing_tags(self._place, tags, manifest.digest)
        is_known = bool(tags) or await is_there(self._place, manifest.digest, manifest.digest)
        if has_subject or missing or not is_known:
            await self._place.registry.push_manifest(self._place.repository, manifest, tags=missing)
        self._on_event(ManifestDone(manifest.descriptor))


def _stands_alone(manifest: Manifest) -> bool:
    """Whether other manifests have nothing to do with it, so that the order does not matter."""
    return manifest.media_type in IMAGE_TYPES and manifest.document.subject is None
