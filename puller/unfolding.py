"""The layers of one image unpacked while their blobs arrive: each into a tree of its own in the store, or all into one.

Law: an unpacker reads what has not been verified yet, so its tree appears only after its blob was. Layers with trees of
their own are unpacked side by side; those of one tree in order.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from moorage.puller.errors import ImageError, UnsafeLayer
from moorage.puller.events import Event, LayerUnpacked, OnEvent
from moorage.puller.fetch.engine import BlobSource, Fetched, Fetcher
from moorage.puller.image import read_layers
from moorage.puller.store import Store
from moorage.puller.unpack.apply import check_target, unpack_layers
from moorage.puller.unpack.layer import Layer, Unpacked
from moorage.puller.unpack.limits import Limits
from moorage.puller.unpack.owners import OwnerMode
from moorage.puller.unpacked import make_tree
from moorage.puller.watched import Progress, watch
from moorage.puller.workers import Workers
from moorage.registry.oci import Digest, ImageManifest, Manifest

__all__ = ["Fetches", "Unfolding"]

_UNPACKS = min(4, max(2, os.cpu_count() or 1))
"""Layers unpacked at a time. One keeps two cores busy; a second uses the time in which the first waits for bytes. More
than there are cores only get into each other's way (measured on two: 5.5 s with 2, 8.7 s with 4)."""

_Result = TypeVar("_Result")
Fetches = Mapping[Digest, asyncio.Task[Fetched]]


class Unfolding:
    """One image being unpacked. For one call of ``unpack``.

    Args:
        resumed: the blobs of which an earlier run had left something, as far as is known so far.
        target: where one merged tree is made; None: each layer gets a tree of its own in the store.

    Attributes:
        done: what was unpacked, by diffID.
        remarks: what our rights did not allow.
    """

    def __init__(
        self,
        source: BlobSource,
        store: Store,
        workers: Workers,
        *,
        resumed: Set[Digest],
        target: str | None,
        owners: OwnerMode | None,
        limits: Limits | None,
        on_event: OnEvent,
    ) -> None:
        self._source, self._store, self._workers, self._resumed = source, store, workers, resumed
        self._target, self._limits = target and check_target(target), limits or Limits()
        self._owners = None if owners is None else OwnerMode(owners)  # a text for it would be none of them, in silence
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(_UNPACKS)
        self.done: dict[Digest, Unpacked] = {}
        self.remarks: tuple[str, ...] = ()

    async def unpack(self, manifest: Manifest, fetcher: Fetcher, fetches: Fetches, group: asyncio.TaskGroup) -> None:
        """Unpacks all layers, in tasks of the group, as far as they are not done when this returns."""
        layers = await self._read_layers(manifest, fetches)
        arriving = [
            replace(layer, open=watch(fetcher.follow(layer.descriptor), self._workers.check, self._progress(layer)))
            for layer in layers
        ]
        if self._target:
            await self._merge(self._target, arriving, fetches)
            return
        # All notes at once, because each waits for the disk; a tree waits for its own when it is made, and not before.
        noting = partial(self._store.files.unsynced.note, trees=[layer.diff_id for layer in layers])
        group.create_task(self._workers.run(noting))
        order = list(fetches)
        alone = {layer.diff_id: layer for layer in arriving}.values()
        for layer in sorted(alone, key=lambda layer: order.index(layer.descriptor.digest)):
            group.create_task(self._grow(layer, fetches))

    async def _read_layers(self, manifest: Manifest, fetches: Fetches) -> list[Layer]:
        document = manifest.document
        if isinstance(document, ImageManifest):
            await fetches[document.config.digest]
        return await self._workers.run(partial(read_layers, self._store.files, manifest))

    def _progress(self, layer: Layer) -> Progress:
        def tell(event: Event) -> None:
            self._loop.call_soon_threadsafe(self._on_event, event)

        return Progress(layer.descriptor, tell)

    async def _grow(self, layer: Layer, fetches: Fetches) -> None:
        """Gives the layer its own tree in the store."""
        async with self._slots:
            if await self._workers.run(partial(self._store.has_tree, layer.diff_id)):
                return
            gate = partial(self._workers.wait_until_verified, [layer.descriptor.digest])
            work = partial(
                make_tree, self._store, layer, limits=self._limits, before_appear=gate, check=self._workers.check
            )
            with _named(self._store.root):
                done = await self._try_twice(work, [layer], fetches)
        if done is not None:
            self._take(layer, done)
            self.remarks += done.skipped
            self._check_image()

    async def _merge(self, target: str, layers: Sequence[Layer], fetches: Fetches) -> None:
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
        with _named(target):
            self.remarks = (await self._try_twice(work, layers, fetches)).skipped

    async def _try_twice(self, work: Callable[[], _Result], layers: Sequence[Layer], fetches: Fetches) -> _Result:
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
        self.done[layer.diff_id] = done
        self._on_event(LayerUnpacked(layer.descriptor, done.entries, done.size, done.seconds))

    def _check_image(self) -> None:
        """Each layer was held to its own limits; this is for images of many."""
        entries = sum(done.entries for done in self.done.values())
        size = sum(done.size for done in self.done.values())
        if entries > self._limits.image_entries or size > self._limits.image_size:
            raise UnsafeLayer(
                f"an image of more than {self._limits.image_entries} entries or {self._limits.image_size} bytes"
            )


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Failures of descriptors say where: of two places, one is on the disk that is full."""
    try:
        yield
    except OSError as exc:
        if exc.filename is None:
            exc.filename = place
        raise
