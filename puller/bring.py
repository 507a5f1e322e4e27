"""Everything below one manifest into the store: blobs fetched, layers unpacked (``unfolding``) while they arrive.

Law: fetching and unpacking of a layer overlap, and so do the layers. The first failure stops everything else. What is
needed to unpack is loaded only where something is unpacked.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from moorage.puller.errors import StoreFull
from moorage.puller.events import Event, OnEvent, Resumed, Times
from moorage.puller.fetch.engine import BlobSource, Fetched, Fetcher
from moorage.puller.fetch.host import Host
from moorage.puller.fetch.ingest import missing_bytes
from moorage.puller.image import blobs_of
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.messages import RetryPolicy
from moorage.puller.store import Store
from moorage.puller.workers import Workers, first_of
from moorage.registry.oci import Descriptor, Digest, Manifest, RepositoryName
from moorage.registry.oci.values import dataclass, field

if TYPE_CHECKING:
    from moorage.puller.unfolding import Unfolding
    from moorage.puller.unpack.layer import Unpacked
    from moorage.puller.unpack.limits import Limits
    from moorage.puller.unpack.owners import OwnerMode

__all__ = ["Bringing", "Brought"]

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
        host: Host | None,
        retry: RetryPolicy | None,
        on_event: OnEvent,
    ) -> None:
        self._source, self._repository, self._store = source, repository, store
        self._host, self._retry, self._on_event = host, retry, on_event
        self._is_merged = target is not None
        self._resumed: set[Digest] = set()
        self._workers = Workers()
        self._done = Brought()
        self._unfolding: Unfolding | None = None
        if target or trees:
            from moorage.puller.unfolding import Unfolding  # noqa: PLC0415 (see the law)

            self._unfolding = Unfolding(
                source,
                store,
                self._workers,
                resumed=self._resumed,
                target=target,
                owners=owners,
                limits=limits,
                on_event=on_event,
            )

    async def bring(self, manifest: Manifest) -> Brought:
        """Fetches and unpacks all of it.

        Raises:
            OciError: a blob could not be fetched.
            UnsafeLayer, BrokenLayer, ImageError: the image is refused.
            TargetExists: something appeared at the target meanwhile.
            StoreFull: what is to be fetched cannot fit the disk.
            OSError: the disk refused.
        """
        blobs = self._in_order(manifest)
        try:
            async with (
                self._workers,
                self._fetcher() as fetcher,
                asyncio.TaskGroup() as group,
            ):
                await self._workers.run(partial(self._prepare, manifest, blobs))
                fetches = {blob.digest: group.create_task(self._fetch(fetcher, blob)) for blob in blobs}
                if self._unfolding is not None:
                    await self._unfolding.unpack(manifest, fetcher, fetches, group)
        except BaseExceptionGroup as failures:
            raise first_of(failures)  # noqa: B904 ("from" would overwrite the failure's own cause)
        if self._unfolding is not None:
            self._done.unpacked, self._done.remarks = self._unfolding.done, self._unfolding.remarks
        return self._done

    def _prepare(self, manifest: Manifest, blobs: Sequence[Descriptor]) -> None:
        """Does what waits for the disk now, if there is room: notes what is going to be published, all at once, and
        stores the manifest. Once bulk data is being written, the journal of ext4 lets nobody pass who waits."""
        files = self._store.files
        absent = [blob for blob in blobs if not os.path.exists(files.blob_path(blob.digest))]
        _check_room(files, absent)
        files.unsynced.note(blobs=[blob.digest for blob in absent])
        files.place_blob(manifest.content, manifest.digest)

    def _fetcher(self) -> Fetcher:
        return Fetcher(
            self._source,
            self._repository,
            self._store.files,
            host=self._host,
            retry=self._retry,
            on_event=self._tell,
        )

    def _in_order(self, manifest: Manifest) -> list[Descriptor]:
        """The config, because it names the diffIDs; then layers as they are merged, or the biggest first, so that no
        big one is left alone at the end."""
        config, *layers = blobs_of(manifest)
        return [config, *(layers if self._is_merged else sorted(layers, key=lambda layer: -layer.size))]

    async def _fetch(self, fetcher: Fetcher, blob: Descriptor) -> Fetched:
        fetched = await fetcher.fetch(blob)
        self._done.blobs[blob.digest] = fetched
        self._workers.verified(blob.digest)
        return fetched

    def _tell(self, event: Event) -> None:
        if isinstance(event, Resumed):
            self._resumed.add(event.descriptor.digest)
        self._on_event(event)


def _check_room(files: LayoutFiles, absent: Sequence[Descriptor]) -> None:
    """Refuses only what surely cannot fit: how big layers are unpacked is not known yet, and is not counted.

    Raises:
        StoreFull: it cannot.
    """
    disk = os.statvfs(files.root)
    free = disk.f_frsize * (disk.f_bfree if os.geteuid() == 0 else disk.f_bavail)
    if disk.f_blocks and sum(blob.size for blob in absent) > free:  # some file systems cannot say how big they are
        needed = sum(missing_bytes(files, blob) for blob in absent)
        if needed > free:
            raise StoreFull(files.root, needed=needed, free=free)
