"""``LocalRegistry``: the ``Registry`` protocol over an ``ObjectStore``; the server's core.

Law: no state but the store's. Any number of processes may serve one store; what they keep in memory are hints.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, Self

import msgspec
from moorage.registry.oci import (
    ANY_VALUE,
    BlobLocation,
    BlobStream,
    Descriptor,
    Digest,
    Manifest,
    NameUnknown,
    OciError,
    Registry,
    RepositoryName,
    Tag,
    TagCondition,
    TagOrDigest,
    UploadStatus,
    verified,
)
from moorage.registry.store import layout
from moorage.registry.store.blobs import Blobs
from moorage.registry.store.border import refusals
from moorage.registry.store.links import Links
from moorage.registry.store.manifests import Manifests
from moorage.registry.store.records import Records
from moorage.registry.store.tags import Tags
from moorage.registry.store.uploads import Uploads
from moorage.storage_backends.base import ABSENT, CommonPrefix, ObjectStore, read_all
from moorage.storage_backends.errors import Conflict, KeyNotFound, StorageError

__all__ = ["LocalRegistry"]

_LAYOUT: Final = "moorage"
_VERSION: Final = 1


class _Format(msgspec.Struct, frozen=True):
    """The first object of a store: which layout it has."""

    layout: str
    version: int


class LocalRegistry(Registry):
    """A registry in an object store, made by ``await LocalRegistry.open(store)``; its opener closes the store."""

    def __init__(
        self, store: ObjectStore, *, allow_sparse: bool, redirect: bool = True, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._clock = clock
        self._presigns = redirect and store.capabilities.presigns
        records = Records(store)
        links = Links(store, records, clock)
        self._blobs = Blobs(store, links)
        self._uploads = Uploads(store, self._blobs)
        self._tags = Tags(store)
        self._manifests = Manifests(store, records, self._blobs, links, self._tags, allow_sparse=allow_sparse)

    @classmethod
    async def open(
        cls,
        store: ObjectStore,
        *,
        allow_sparse: bool = False,
        redirect: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """A registry over ``store``, which is empty or was one before.

        Args:
            allow_sparse: take manifests that reference content which the repository does not have.
            redirect: let clients fetch blobs from the store itself, where it can give them URLs.
            clock: Unix time in seconds, as the store tells it.

        Raises:
            StorageError: the store holds something else, or a layout of another version; nothing was changed.
        """
        await _check_format(store)
        return cls(store, allow_sparse=allow_sparse, redirect=redirect, clock=clock)

    @property
    def is_writable(self) -> bool:
        """Whether its store takes writes."""
        return self._store.capabilities.writable

    async def resolve_blob(self, repository: RepositoryName, digest: Digest, *, for_push: bool = False) -> Descriptor:
        """See ``Reader.resolve_blob``."""
        with refusals:
            if for_push:
                return await self._blobs.resolve_for_push(repository, digest)
            return await self._blobs.resolve(repository, digest)

    def read_blob(
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[BlobStream]:
        """See ``Reader.read_blob``."""
        return self._blobs.read(repository, digest, start=start, stop=stop)

    async def locate_blob(
        self, repository: RepositoryName, digest: Digest, *, ttl: int, headers: Mapping[str, str]
    ) -> BlobLocation | None:
        """See ``Reader.locate_blob``."""
        if not self._presigns:
            return None
        with refusals:
            return await self._blobs.locate(repository, digest, ttl, headers)

    async def resolve_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Descriptor:
        """See ``Reader.resolve_manifest``."""
        with refusals:
            return await self._manifests.resolve(repository, reference)

    async def read_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Manifest:
        """See ``Reader.read_manifest``."""
        with refusals:
            return await self._manifests.read(repository, reference)

    async def push_blob(
        self, repository: RepositoryName, descriptor: Descriptor, content: AsyncIterable[bytes]
    ) -> Descriptor:
        """See ``Writer.push_blob``."""
        session = await self.start_upload(repository, algorithm=descriptor.digest.algorithm)
        try:
            await self.append_upload(repository, session.id, verified(content, descriptor), start=0)
            return await self.finish_upload(repository, session.id, descriptor.digest)
        except BaseException:
            with suppress(OciError):  # gone already, or left to expire
                await asyncio.shield(self.cancel_upload(repository, session.id))
            raise

    async def mount_blob(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName | None = None
    ) -> Descriptor:
        """See ``Writer.mount_blob``."""
        with refusals:
            return await self._blobs.mount(repository, digest, source)

    async def push_manifest(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        *,
        tags: Sequence[Tag] = (),
        condition: TagCondition = ANY_VALUE,
    ) -> Descriptor:
        """See ``Writer.push_manifest``."""
        with refusals:
            return await self._manifests.put(repository, manifest, tags, condition)

    async def start_upload(self, repository: RepositoryName, *, algorithm: str | None = None) -> UploadStatus:
        """See ``Uploader.start_upload``."""
        with refusals:
            return await self._uploads.start(repository, algorithm)

    async def upload_status(self, repository: RepositoryName, upload: str) -> UploadStatus:
        """See ``Uploader.upload_status``."""
        with refusals:
            return await self._uploads.status(repository, upload)

    async def append_upload(
        self, repository: RepositoryName, upload: str, content: AsyncIterable[bytes], *, start: int | None = None
    ) -> UploadStatus:
        """See ``Uploader.append_upload``."""
        with refusals:
            return await self._uploads.append(repository, upload, content, start)

    async def finish_upload(self, repository: RepositoryName, upload: str, digest: Digest) -> Descriptor:
        """See ``Uploader.finish_upload``."""
        with refusals:
            return await self._uploads.finish(repository, upload, digest)

    async def cancel_upload(self, repository: RepositoryName, upload: str) -> None:
        """See ``Uploader.cancel_upload``."""
        with refusals:
            await self._uploads.cancel(repository, upload)

    async def delete_blob(self, repository: RepositoryName, digest: Digest) -> None:
        """See ``Deleter.delete_blob``."""
        with refusals:
            await self._blobs.resolve(repository, digest)
            await self._manifests.unlink_blob(repository, digest)

    async def delete_manifest(self, repository: RepositoryName, digest: Digest) -> None:
        """See ``Deleter.delete_manifest``."""
        with refusals:
            await self._manifests.delete(repository, digest)

    async def delete_tag(self, repository: RepositoryName, tag: Tag) -> None:
        """See ``Deleter.delete_tag``."""
        with refusals:
            async with self._store.batch():
                await self._tags.delete(repository, tag)

    async def list_repositories(self, *, after: RepositoryName | None = None) -> AsyncIterator[RepositoryName]:
        """See ``Lister.list_repositories``."""
        start = layout.repository_manifests(after) if after is not None else ""
        with refusals:
            async for entry in self._store.list(layout.REPOSITORIES, after=start, delimiter="/"):
                name = layout.repository_at(entry.prefix) if isinstance(entry, CommonPrefix) else None
                if name is not None:
                    yield name

    async def list_tags(self, repository: RepositoryName, *, after: str = "") -> AsyncIterator[Tag]:
        """See ``Lister.list_tags``."""
        empty = True
        with refusals:
            async for tag in self._tags.list(repository, after):
                empty = False
                yield tag
            if empty and not await self._exists(repository):
                raise NameUnknown(detail={"name": str(repository)})

    async def list_referrers(
        self, repository: RepositoryName, subject: Digest, *, artifact_type: str | None = None, after: str = ""
    ) -> AsyncIterator[Descriptor]:
        """See ``Lister.list_referrers``."""
        with refusals:
            async for descriptor in self._manifests.referrers.list(repository, subject, artifact_type, after):
                yield descriptor

    async def expire_uploads(self, older_than: float) -> int:
        """Drops upload sessions without progress for ``older_than`` seconds; returns how many."""
        with refusals:
            return await self._uploads.expire(older_than, self._clock())

    async def _exists(self, repository: RepositoryName) -> bool:
        for prefix in layout.repository_prefixes(repository):
            async for _ in self._store.list(prefix):
                return True
        return False


async def _check_format(store: ObjectStore) -> None:
    ours = _Format(_LAYOUT, _VERSION)
    try:
        raw, _ = await read_all(store, layout.FORMAT)
    except KeyNotFound:
        async for entry in store.list("", delimiter="/"):
            name = entry.prefix if isinstance(entry, CommonPrefix) else entry.key
            with suppress(KeyNotFound):
                await store.stat(layout.FORMAT)
                break  # another worker has made this a registry since we looked
            raise StorageError(f"the store is not empty and not a Moorage registry: it has {name!r}") from None
        with suppress(Conflict):
            await store.put(layout.FORMAT, msgspec.json.encode(ours), expect=ABSENT)
        raw, _ = await read_all(store, layout.FORMAT)
    try:
        found = msgspec.json.decode(raw, type=_Format)
    except msgspec.DecodeError:
        raise StorageError(f"the store is not a Moorage registry: its {layout.FORMAT!r} is something else") from None
    if found != ours:
        raise StorageError(f"the store has layout {found.layout!r} version {found.version}; this Moorage knows {ours}")
