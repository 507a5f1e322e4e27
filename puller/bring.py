"""Everything below one manifest into the store: blobs fetched, layers unpacked while they arrive.

Law: fetching and unpacking of a layer overlap, and so do the layers. An unpacker reads what has not been verified yet;
so its tree appears only after its blob was. The first failure stops everything else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from moorage.puller.errors import ImageError, UnsafeLayer
from moorage.puller.events import Event, LayerUnpacked, OnEvent, Resumed, Times
from moorage.puller.fetch.engine import BlobSource, Fetched, Fetcher
from moorage.puller.image import blobs_of, read_layers
from moorage.puller.messages import RetryPolicy
from moorage.puller.store import Store
from moorage.puller.unpack.apply import check_target, unpack_layers
from moorage.puller.unpack.layer import Layer, Unpacked
from moorage.puller.unpack.limits import Limits
from moorage.puller.unpack.owners import OwnerMode
from moorage.puller.unpacked import make_tree
from moorage.puller.watched import Progress, watch
from moorage.puller.workers import Workers, first_of
from moorage.registry.oci import Descriptor, Digest, ImageManifest, Manifest, RepositoryName
from moorage.registry.oci.values import dataclass, field

__all__ = ["Bringing", "Brought"]

_UNPACKS = min(4, max(2, os.cpu_count() or 1))
"""Layers unpacked at a time. One keeps two cores busy; a second uses the time in which the first waits for bytes. More
than there are cores only get into each other's way (measured on two: 5.5 s with 2, 8.7 s with 4)."""

_Result = TypeVar("_Result")
_Fetches = dict[Digest, asyncio.Task[Fetched]]


@dataclass(slots=True)
class Brought:
    """What was done: blobs by digest; layers by diffID, of those that were unpacked now."""

    blobs: dict[Digest, Fetched] = field(default_factory=dict)
    unpacked: dict[Digest, Unpacked] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def times(self) -> Times:
        """Where the time went, of all of them."""
        parts = [fetched.times for fetched in self.blobs.values()] + [done.times for done in self.unpacked.values()]
        return sum(parts, Times())


class Bringing:
    """One image on its way into a store, whose lease the caller holds. For one call of ``bring``.

    Args:
        target: where one merged tree is made of its layers.
        trees: each layer gets a tree of its own in the store; not where there is a ``target``.
        owners: whose the files of the merged tree become.
    """

    def __init__(
        self,
        source: BlobSource,
        repository: RepositoryName,
        store: Store,
        *,
        target: str | None,
        trees: bool,
        owners: OwnerMode | None,
        limits: Limits | None,
        retry: RetryPolicy | None,
        on_event: OnEvent,
    ) -> None:
        self._source, self._repository, self._store = source, repository, store
        self._target, self._trees = target and check_target(target), trees and not target
        self._owners, self._limits = owners, limits or Limits()
        self._retry, self._on_event = retry, on_event
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(_UNPACKS)
        self._resumed: set[Digest] = set()
        self._workers = Workers()
        self._done = Brought()

    async def bring(self, manifest: Manifest) -> Brought:
        """Fetches and unpacks all of it.

        Raises:
            OciError: a blob could not be fetched.
            UnsafeLayer, BrokenLayer, ImageError: the image is refused.
            TargetExists: something appeared at the target meanwhile.
            OSError: the disk refused.
        """
        blobs = self._in_order(manifest)
        try:
            async with (
                self._workers,
                self._fetcher() as fetcher,
                asyncio.TaskGroup() as group,
            ):
                await self._workers.run(partial(self._store.files.unsynced.note, blobs=[b.digest for b in blobs]))
                fetches = {blob.digest: group.create_task(self._fetch(fetcher, blob)) for blob in blobs}
                if self._target or self._trees:
                    await self._unpack(manifest, fetcher, fetches, group)
        except BaseExceptionGroup as failures:
            raise first_of(failures)  # noqa: B904 ("from" would overwrite the failure's own cause)
        return self._done

    def _fetcher(self) -> Fetcher:
        return Fetcher(self._source, self._repository, self._store.files, retry=self._retry, on_event=self._tell)

    def _in_order(self, manifest: Manifest) -> list[Descriptor]:
        """The config, because it names the diffIDs; then layers as they are merged, or the biggest first, so that no
        big one is left alone at the end."""
        config, *layers = blobs_of(manifest)
        return [config, *(layers if self._target else sorted(layers, key=lambda layer: -layer.size))]

    async def _fetch(self, fetcher: Fetcher, blob: Descriptor) -> Fetched:
        fetched = await fetcher.fetch(blob)
        self._done.blobs[blob.digest] = fetched
        self._workers.verified(blob.digest)
        return fetched

    async def _unpack(self, manifest: Manifest, fetcher: Fetcher, fetches: _Fetches, group: asyncio.TaskGroup) -> None:
        layers = await self._read_layers(manifest, fetches)
        arriving = [
            replace(layer, open=watch(fetcher.follow(layer.descriptor), self._workers.check, self._progress(layer)))
            for layer in layers
        ]
        if self._target:
            await self._merge(self._target, arriving, fetches)
            return
        await self._workers.run(partial(self._store.files.unsynced.note, trees=[la.diff_id for la in layers]))
        order = list(fetches)
        alone = {layer.diff_id: layer for layer in arriving}.values()
        for layer in sorted(alone, key=lambda layer: order.index(layer.descriptor.digest)):
            group.create_task(self._grow(layer, fetches))

    async def _read_layers(self, manifest: Manifest, fetches: _Fetches) -> list[Layer]:
        document = manifest.document
        if isinstance(document, ImageManifest):
            await fetches[document.config.digest]
        return await self._workers.run(partial(read_layers, self._store.files, manifest))

    def _progress(self, layer: Layer) -> Progress:
        def tell(event: Event) -> None:
            self._loop.call_soon_threadsafe(self._on_event, event)

        return Progress(layer.descriptor, tell)

    async def _grow(self, layer: Layer, fetches: _Fetches) -> None:
        """Gives the layer its own tree in the store."""
        async with self._slots:
            if await self._workers.run(partial(self._store.has_tree, layer.diff_id)):
                return
            gate = partial(self._workers.wait_until_verified, [layer.descriptor.digest])
            work = partial(
                make_tree, self._store, layer, limits=self._limits, before_appear=gate, check=self._workers.check
            )
            done = await self._try_twice(work, [layer], fetches)
        if done is not None:
            self._take(layer, done)
            self._done.remarks += done.skipped
            self._check_image()

    async def _merge(self, target: str, layers: Sequence[Layer], fetches: _Fetches) -> None:
        """Makes the target of all layers."""

        def on_layer(layer: Layer, done: Unpacked) -> None:
            self._loop.call_soon_threadsafe(self._take, layer, done)

        gate = partial(self._workers.wait_until_verified, list(fetches))
        work = partial(
            unpack_layers,
            layers,
            target,
            owners=self._owners,
            limits=self._limits,
            on_layer=on_layer,
            before_appear=gate,
        )
        self._done.remarks = (await self._try_twice(work, layers, fetches)).skipped

    async def _try_twice(self, work: Callable[[], _Result], layers: Sequence[Layer], fetches: _Fetches) -> _Result:
        """Does the work. Where it read bytes that the fetch may find wrong and replace, because an earlier run had left
        them or a mirror sent them, once more when the fetch is done."""
        try:
            return await self._workers.run(work)
        except ImageError:
            blobs = {layer.descriptor.digest: layer.descriptor for layer in layers}
            if blobs.keys().isdisjoint(self._resumed) and not any(map(self._source.is_second_hand, blobs.values())):
                raise
        await asyncio.gather(*(fetches[digest] for digest in blobs))
        return await self._workers.run(work)

    def _take(self, layer: Layer, done: Unpacked) -> None:
        self._done.unpacked[layer.diff_id] = done
        self._on_event(LayerUnpacked(layer.descriptor, done.entries, done.size, done.seconds))

    def _check_image(self) -> None:
        """Each layer was held to its own limits; this is for images of many."""
        entries = sum(done.entries for done in self._done.unpacked.values())
        size = sum(done.size for done in self._done.unpacked.values())
        if entries > self._limits.image_entries or size > self._limits.image_size:
            raise UnsafeLayer(
                f"an image of more than {self._limits.image_entries} entries or {self._limits.image_size} bytes"
            )

    def _tell(self, event: Event) -> None:
        if isinstance(event, Resumed):
            self._resumed.add(event.descriptor.digest)
        self._on_event(event)
