"""Manifests: put, found, deleted.

Law of the put (DESIGN 4; model-checked in tests/unit): reservation with the edges → the manifest's own link on each
blob → the right to the blob, its doom, its bytes → the reservation becomes the record, unless it was given up →
referrer → tags → the record itself again → answer. The edges count for the collector from reservation to record without
a gap, so a record is good from the moment it is seen: nobody ever takes back what others may rely on already.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from moorage.registry.oci import (
    BlobReferenced,
    BlobUnknown,
    Descriptor,
    Digest,
    DigestInvalid,
    Manifest,
    ManifestBlobUnknown,
    ManifestUnknown,
    RepositoryName,
    Tag,
    TagCondition,
    Unavailable,
)
from moorage.registry.store import layout
from moorage.registry.store.blobs import Blobs
from moorage.registry.store.links import Links
from moorage.registry.store.records import Header, Record, Records
from moorage.registry.store.referrers import Referrers
from moorage.registry.store.side_by_side import side_by_side
from moorage.registry.store.tags import Tags
from moorage.storage_backends.base import ObjectInfo, ObjectStore
from moorage.storage_backends.errors import Conflict, StorageError

__all__ = ["Manifests"]

_ATTEMPTS: Final = 5
"""How often a put starts again because it was given up for dead, or its record deleted, before it was answered."""


@dataclass(frozen=True, slots=True)
class _Edges:
    """What a manifest references and the repository has."""

    blobs: tuple[Digest, ...]
    manifests: tuple[Digest, ...]


class Manifests:
    """The manifests of all repositories."""

    def __init__(
        self, store: ObjectStore, records: Records, blobs: Blobs, links: Links, tags: Tags, *, allow_sparse: bool
    ) -> None:
        self._store, self._records, self._blobs, self._links, self._tags = store, records, blobs, links, tags
        self._allow_sparse = allow_sparse
        self.referrers = Referrers(store)

    async def resolve(self, repository: RepositoryName, reference: Tag | Digest) -> Descriptor:
        """The descriptor of a manifest; see ``Reader.resolve_manifest``."""
        if isinstance(reference, Tag):
            value = await self._tags.read(repository, reference)
            descriptor = value.descriptor
            if await self._records.exists(repository, descriptor.digest, value.generation):
                return descriptor
            reference = descriptor.digest
        return (await self._newest(repository, reference)).manifest.descriptor

    async def read(self, repository: RepositoryName, reference: Tag | Digest) -> Manifest:
        """A manifest; see ``Reader.read_manifest``."""
        if isinstance(reference, Tag):
            value = await self._tags.read(repository, reference)
            reference = Digest.parse(value.digest)
            record = await self._records.find(repository, reference, value.generation)
            if record is not None:
                return record.manifest
        return (await self._newest(repository, reference)).manifest

    async def put(
        self, repository: RepositoryName, manifest: Manifest, tags: Sequence[Tag], condition: TagCondition
    ) -> Descriptor:
        """Stores a manifest and moves tags to it; see ``Writer.push_manifest``."""
        if Digest.of(manifest.content, manifest.digest.algorithm) != manifest.digest:
            raise DigestInvalid("manifest does not have this digest", detail={"digest": str(manifest.digest)})
        replaced: str | None = None  # a generation of ours that the tags name, though its record was deleted
        for _ in range(_ATTEMPTS):
            record = _new_record(manifest, await self._edges(repository, manifest))
            if replaced is None:
                await self._tags.check(repository, tags, condition)
            if not await self._publish(repository, record, tags):
                continue
            await self._move_tags(repository, record, tags, condition, replaced)
            if await self._is_safe(repository, manifest.digest, record.generation):
                return manifest.descriptor
            await self._drop_traces(repository, record)
            replaced = record.generation
        raise Unavailable("the manifest was deleted while it was put, again and again")

    async def delete(self, repository: RepositoryName, digest: Digest) -> None:
        """Removes a manifest and its tags; see ``Deleter.delete_manifest``."""
        records = await self._records.all(repository, digest)
        if not records:
            raise _unknown(digest)
        async with self._store.batch():
            await self._untag(repository, digest)
            for record in records:
                await self._unlist(repository, record)
                await self._records.delete(repository, digest, record.generation)
            # A put may have moved a tag here meanwhile. It looks for its record after that, we for its tag after this.
            await self._untag(repository, digest)
        async with self._store.batch():  # only now, for a record that a power cut brings back needs its links
            for record in records:
                await self._drop_traces(repository, record)

    async def unlink_blob(self, repository: RepositoryName, blob: Digest) -> None:
        """Takes a blob away from the repository; its bytes are collected later.

        Raises:
            BlobReferenced: a manifest of the repository needs it, or one that is being put; the detail names it.
            Unavailable: such a put began meanwhile; who tries again learns how it ended.
        """
        links = await self._links.all(repository, blob)
        holder = await self._holder(repository, links)
        if holder is not None:
            raise BlobReferenced(detail={"digest": str(blob), "manifest": str(holder)})
        async with self._store.batch():
            for link in links:
                await self._store.delete(link.key)
            # A put that saw these links writes its own and looks for them again; we look for its after they are gone.
            if await self._holder(repository, await self._links.all(repository, blob)) is not None:
                raise Unavailable("a manifest that needs the blob is being put")

    async def _newest(self, repository: RepositoryName, digest: Digest) -> Record:
        record = await self._records.newest(repository, digest)
        if record is None:
            raise _unknown(digest)
        return record

    async def _edges(self, repository: RepositoryName, manifest: Manifest) -> _Edges:
        """What the manifest references; refuses it if something is not there and sparse manifests are not allowed."""
        document = manifest.document
        named, nested = ([found.digest for found in each] for each in (document.blobs, document.manifests))
        blobs, lacking = await self._split(named, lambda digest: self._links.exist(repository, digest))
        children, orphans = await self._split(nested, lambda digest: self._has(repository, digest))
        if (lacking or orphans) and not self._allow_sparse:
            raise _missing([*lacking, *orphans])
        return _Edges(blobs, children)

    async def _split(
        self, digests: Iterable[Digest], is_there: Callable[[Digest], Awaitable[bool]]
    ) -> tuple[tuple[Digest, ...], tuple[Digest, ...]]:
        """The digests that are there and those that are not, each once."""
        digests = tuple(dict.fromkeys(digests))
        found = list(zip(digests, await side_by_side(self._store, digests, is_there), strict=True))
        return tuple(digest for digest, there in found if there), tuple(digest for digest, there in found if not there)

    async def _has(self, repository: RepositoryName, digest: Digest) -> bool:
        return await self._records.newest(repository, digest) is not None

    async def _publish(self, repository: RepositoryName, record: Record, tags: Sequence[Tag]) -> bool:
        """Writes edges, links and record; False if we were so slow that the collector gave the put up."""
        version: str | None = None
        try:
            async with self._store.batch():
                version = await self._records.reserve(repository, record)
                await self._write_edges(repository, record, tags)
                await self._check_edges(repository, record)
            async with self._store.batch():  # of its own, for a power cut may keep any part of one
                await self._records.publish(repository, record, version)
                await self._list_referrer(repository, record)
        except BaseException as error:
            if version is not None:
                await self._withdraw(repository, record, version)
            if isinstance(error, Conflict):
                return False
            raise
        return True

    async def _withdraw(self, repository: RepositoryName, record: Record, version: str) -> None:
        """Takes a put back, unless it was published; what fails here, or is cut off by a crash, the collector does."""
        with suppress(StorageError):
            await self._records.withdraw(repository, record, version)
            await self._drop_traces(repository, record)

    async def _write_edges(self, repository: RepositoryName, record: Record, tags: Sequence[Tag]) -> None:
        digest, generation = record.manifest.digest, record.generation
        edges = [
            layout.manifest_link(repository, Digest.parse(blob), digest, generation) for blob in record.header.blobs
        ]
        edges += [layout.tagged(repository, digest, tag, generation) for tag in tags]
        await side_by_side(self._store, edges, lambda edge: self._store.put(edge, b""))

    async def _check_edges(self, repository: RepositoryName, record: Record) -> None:
        """Whether everything referenced may be relied on: allowed to the repository, not condemned, and still there.

        Raises:
            ManifestBlobUnknown: what may not.
        """
        blobs, manifests = map(Digest.parse, record.header.blobs), map(Digest.parse, record.header.manifests)
        _, missing = await self._split(blobs, lambda digest: self._may_rely_on(repository, digest))
        _, orphans = await self._split(manifests, lambda digest: self._has_safe(repository, digest))
        if missing or orphans:
            raise _missing([*missing, *orphans])

    async def _may_rely_on(self, repository: RepositoryName, blob: Digest) -> bool:
        # Without the first question, a put that looked for links before a delete would bring the blob back after it.
        if not await self._links.allow(repository, blob):
            return False
        try:
            await self._blobs.usable(blob)
        except BlobUnknown:
            return False
        return True

    async def _holder(self, repository: RepositoryName, links: Sequence[ObjectInfo]) -> Digest | None:
        """A manifest, published or being put, that holds one of the links; None where none does."""
        for link in links:
            manifest = layout.parse_manifest_link(link.key)
            if manifest is not None and await self._records.exists(repository, *manifest):
                return manifest[0]
        return None

    async def _has_safe(self, repository: RepositoryName, digest: Digest) -> bool:
        """Whether a record of this manifest may be relied on: doom first, then the record (DESIGN 4)."""
        for record in await self._records.all(repository, digest):
            if await self._is_safe(repository, digest, record.generation):
                return True
        return False

    async def _is_safe(self, repository: RepositoryName, digest: Digest, generation: str) -> bool:
        """Doom first, then the record itself: in this order (DESIGN 4)."""
        return not await self._blobs.is_doomed(generation) and await self._records.exists(
            repository, digest, generation
        )

    async def _move_tags(
        self,
        repository: RepositoryName,
        record: Record,
        tags: Sequence[Tag],
        condition: TagCondition,
        replaced: str | None,
    ) -> None:
        if not tags:
            return
        descriptor, generation = record.manifest.descriptor, record.generation
        async with self._store.batch():
            for tag in tags:
                if replaced is None:
                    await self._tags.swap(repository, tag, descriptor, generation, condition)
                else:
                    await self._tags.follow(repository, tag, descriptor, replaced, generation)

    async def _untag(self, repository: RepositoryName, digest: Digest) -> None:
        for tag in await self._tags.of_manifest(repository, digest):
            with suppress(ManifestUnknown):  # the tag has gone, or moved on, since it was marked
                await self._tags.delete(repository, tag, only=digest)

    async def _drop_traces(self, repository: RepositoryName, record: Record) -> None:
        """Takes away what bears the name of a record that is gone."""
        digest, generation = record.manifest.digest, record.generation
        await self._unlist(repository, record)
        links = [
            layout.manifest_link(repository, Digest.parse(blob), digest, generation) for blob in record.header.blobs
        ]
        await side_by_side(self._store, links, self._store.delete)
        await self._tags.drop_markers(repository, digest, generation)

    async def _list_referrer(self, repository: RepositoryName, record: Record) -> None:
        if record.header.subject:
            subject = Digest.parse(record.header.subject)
            await self.referrers.add(repository, subject, record.manifest, record.generation)

    async def _unlist(self, repository: RepositoryName, record: Record) -> None:
        if record.header.subject:
            subject = Digest.parse(record.header.subject)
            await self.referrers.remove(repository, subject, record.manifest.digest, record.generation)


def _new_record(manifest: Manifest, edges: _Edges) -> Record:
    subject = manifest.document.subject
    header = Header(
        media_type=manifest.media_type,
        time=time.time(),
        blobs=tuple(map(str, edges.blobs)),
        manifests=tuple(map(str, edges.manifests)),
        subject=str(subject.digest) if subject is not None else "",
    )
    return Record(manifest, layout.new_generation(), header)


def _missing(digests: Sequence[Digest]) -> ManifestBlobUnknown:
    return ManifestBlobUnknown(detail=[{"digest": str(digest)} for digest in digests])


def _unknown(digest: Digest) -> ManifestUnknown:
    return ManifestUnknown(detail={"digest": str(digest)})
