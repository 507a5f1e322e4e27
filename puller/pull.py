"""Pull: brings an image into the store: resolve, then for each layer fetch, verify, inflate, check the diffID and
unpack, all at the same time.

Law: nothing can be seen before it holds. A blob appears when its size and digest do, a tree when its diffID and its
blob's digest do, and the name when all of the image is there. Whatever fails, fails the whole pull at once: what has
arrived of blobs is kept for the next one, what was being unpacked is removed. Bytes wait in files, never in memory.
An image that is there already costs one HEAD and a look at its files; the engine is not even loaded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Protocol

from moorage.puller.events import BlobSkipped, Finished, ManifestDone, OnEvent, Resolved, Times, ignore
from moorage.puller.image import blobs_of, is_container, read_layers, read_platform
from moorage.puller.platforms import host_platform
from moorage.puller.resolve import Policy, Resolver, Wanted
from moorage.puller.results import LayerResult, PullResult
from moorage.puller.store import Store
from moorage.puller.threads import in_thread
from moorage.registry.oci import (
    ANY_VALUE,
    BlobUnknown,
    Descriptor,
    Digest,
    ImageManifest,
    Manifest,
    Platform,
    Reader,
    Reference,
    RepositoryName,
)
from moorage.registry.oci.values import dataclass

if TYPE_CHECKING:
    from moorage.puller.bring import Brought
    from moorage.puller.fetch.host import Host
    from moorage.puller.messages import Answer, RetryPolicy
    from moorage.puller.unpack.limits import Limits
    from moorage.puller.unpack.owners import OwnerMode

__all__ = ["Source", "pull_image"]


class Source(Reader, Protocol):
    """What a pull needs of a registry: see ``Reader`` and ``fetch.engine.BlobSource``."""

    def get_blob(
        self, repository: RepositoryName, blob: Descriptor, *, start: int, stop: int
    ) -> AbstractAsyncContextManager[Answer]:
        """See ``BlobSource``."""

    def distrust(self, blob: Descriptor) -> bool:
        """See ``BlobSource``."""

    def is_second_hand(self, blob: Descriptor) -> bool:
        """See ``BlobSource``."""


async def pull_image(
    source: Source,
    reference: Reference,
    store: Store,
    *,
    platform: Platform | None = None,
    policy: Policy = "always",
    target: str | None = None,
    trees: bool = True,
    owners: OwnerMode | None = None,
    limits: Limits | None = None,
    host: Host | None = None,
    retry: RetryPolicy | None = None,
    on_event: OnEvent = ignore,
) -> PullResult:
    """Makes the image complete in the store under its reference, and unpacked.

    Args:
        source: the registry of the reference; with the policy ``never`` it is not asked anything.
        platform: which image of an index, or what an image alone must be for; None: this machine's, or any.
        policy: whether the registry is asked what the reference names: ``always``, if it is ``missing``, ``never``.
        target: a directory that must not exist, or be empty: one merged tree of all layers, sharing nothing with the
            store. None: each layer gets its own tree in the store, once for all images, unless ``trees`` is off or it
            is no container image.
        owners: whose the files of a merged tree become; None: as the image says for root, the caller's for others.
        host: what earlier pulls have learned about the registry by fetching from it.
        retry: how long what fails for a while is tried again.

    Raises:
        ManifestUnknown: neither the registry nor the store has it.
        NoMatchingPlatform: its index has none for the platform, or there is one only, for another.
        OciError: what the registry refused, or sent wrong.
        UnsafeLayer, BrokenLayer, ImageError: the image is refused.
        TargetExists: there is something at the target.
        OSError: the disk refuses.
    """
    place = None if target is None else os.path.abspath(target)  # noqa: ASYNC240 (it asks for the working directory)
    work = _Pull(
        source, reference, store, platform or host_platform(), policy, place, owners, limits, host, retry, on_event
    )
    async with store.leased():
        return await work.run(trees=trees, any_platform=platform is None)


@dataclass(frozen=True, slots=True)
class _Pull:
    source: Source
    reference: Reference
    store: Store
    platform: Platform
    policy: Policy
    target: str | None
    owners: OwnerMode | None
    limits: Limits | None
    host: Host | None
    retry: RetryPolicy | None
    on_event: OnEvent

    async def run(self, *, trees: bool, any_platform: bool) -> PullResult:
        began = time.monotonic()
        resolver = Resolver(self.source, self.reference, self.store, self.platform)
        wanted = await resolver.find(self.policy)
        manifest, blobs = wanted.manifest, blobs_of(wanted.manifest)
        if not any_platform and wanted.named == manifest.digest:  # no index said what it is for
            await self._check_platform(manifest)
        size = sum(blob.size for blob in blobs)
        self.on_event(Resolved(str(self.reference), manifest.descriptor, len(blobs), size, blobs))
        has_trees = trees and self.target is None and is_container(manifest)
        brought = None
        if self.target or not await in_thread(partial(self._is_complete, manifest, has_trees=has_trees)):
            brought = await self._bring(manifest, has_trees=has_trees)
        else:
            for blob in blobs:
                self.on_event(BlobSkipped(blob, "exists"))
        await in_thread(partial(self._publish, wanted, resolver.annotations(wanted)))
        self.on_event(ManifestDone(manifest.descriptor))
        layers = await in_thread(partial(self._describe_layers, manifest, brought, has_trees=has_trees))
        return await self._finish(manifest, layers, brought, began)

    async def _check_platform(self, manifest: Manifest) -> None:
        document = manifest.document
        if is_container(manifest) and isinstance(document, ImageManifest):
            from moorage.puller.suited import check_platform  # noqa: PLC0415 (few name a platform)

            source: Reader = self.store.view(self.reference.registry) if self.policy == "never" else self.source
            await check_platform(source, self.reference.repository, self.store.files, document, self.platform)

    def _is_complete(self, manifest: Manifest, *, has_trees: bool) -> bool:
        """Whether there is nothing to fetch and nothing to unpack."""
        files = self.store.files
        if not all(files.has_blob(blob.digest) for blob in blobs_of(manifest)):
            return False
        return not has_trees or all(self.store.has_tree(layer.diff_id) for layer in read_layers(files, manifest))

    async def _bring(self, manifest: Manifest, *, has_trees: bool) -> Brought:
        from moorage.puller.bring import Bringing  # noqa: PLC0415 (not loaded where everything is there)

        source = _Nowhere() if self.policy == "never" else self.source
        bringing = Bringing(
            source, self.reference.repository, self.store,
            target=self.target, trees=has_trees, owners=self.owners, limits=self.limits,
            host=self.host, retry=self.retry, on_event=self.on_event,
        )  # fmt: skip
        return await bringing.bring(manifest)

    def _publish(self, wanted: Wanted, annotations: Mapping[str, str] | None) -> None:
        if not wanted.is_published:
            tags = [self.reference.tag] if self.reference.tag else []
            catalog = self.store.view(self.reference.registry).catalog
            catalog.push(self.reference.repository, wanted.manifest, tags, ANY_VALUE, annotations=annotations)
        self.store.mark_used(wanted.manifest.digest)

    def _describe_layers(
        self, manifest: Manifest, brought: Brought | None, *, has_trees: bool
    ) -> tuple[LayerResult, ...]:
        """The layers, lowest first."""
        document = manifest.document
        if not isinstance(document, ImageManifest):
            return ()
        if not is_container(manifest):
            return tuple(self._describe(layer, None, brought, has_tree=False) for layer in document.layers)
        layers = read_layers(self.store.files, manifest)
        return tuple(self._describe(la.descriptor, la.diff_id, brought, has_tree=has_trees) for la in layers)

    def _describe(
        self, layer: Descriptor, diff_id: Digest | None, brought: Brought | None, *, has_tree: bool
    ) -> LayerResult:
        path = self.store.tree_path(diff_id) if has_tree and diff_id else None
        fetched = brought and brought.blobs.get(layer.digest)
        unpacked = brought and diff_id and brought.unpacked.get(diff_id)
        return LayerResult(
            layer,
            diff_id,
            fetched.source if fetched else "cached",
            fetched.fetched if fetched else 0,
            (fetched.seconds if fetched else 0.0) + (unpacked.seconds if unpacked else 0.0),
            path,
        )

    async def _finish(
        self, manifest: Manifest, layers: tuple[LayerResult, ...], brought: Brought | None, began: float
    ) -> PullResult:
        fetched = sum(blob.fetched for blob in brought.blobs.values()) if brought else 0
        times = brought.times if brought else Times()
        document, platform = manifest.document, None
        if is_container(manifest) and isinstance(document, ImageManifest):
            platform = await in_thread(partial(read_platform, self.store.files, document))
        seconds = time.monotonic() - began
        self.on_event(Finished(manifest.descriptor, fetched, seconds, times))
        return PullResult(
            self.reference,
            manifest.descriptor,
            platform,
            layers,
            self.target,
            fetched,
            seconds,
            times,
            brought.remarks if brought else (),
        )


class _Nowhere:
    """The source of a pull that may not ask for anything."""

    def get_blob(
        self, repository: RepositoryName, blob: Descriptor, *, start: int, stop: int
    ) -> AbstractAsyncContextManager[Answer]:
        """See ``BlobSource``.

        Raises:
            BlobUnknown: always.
        """
        raise BlobUnknown(
            "the store lacks a part of the image, and may not ask for it", detail={"digest": str(blob.digest)}
        )

    def distrust(self, blob: Descriptor) -> bool:
        """See ``BlobSource``."""
        return False

    def is_second_hand(self, blob: Descriptor) -> bool:
        """See ``BlobSource``."""
        return False
