"""Manifests: put, found, deleted.

Law of the put (DESIGN 4; model-checked in tests/unit): pending edge → the manifest's own link on every blob → doom and
bytes of each blob → record → referrer → doom and bytes again → tags → the record itself again → answer. Whoever sees
the answer sees all of it; a crash or a refusal before it leaves only what nobody was promised, and the collector finds.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from moorage.registry.oci import (
    ANY_VALUE,
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
from moorage.registry.store.records import Header, Record, Records
from moorage.registry.store.referrers import Referrers
from moorage.registry.store.tags import Tags
from moorage.storage_backends.base import ObjectInfo, ObjectStore

__all__ = ["Manifests"]

_ATTEMPTS: Final = 5
"""How often a put starts again because its record was deleted under it before it was answered."""


@dataclass(frozen=True, slots=True)
class _Edges:
    """What a manifest references and the repository has."""

    blobs: tuple[Digest, ...]
    manifests: tuple[Digest, ...]


class Manifests:
    """The manifests of all repositories."""

    def __init__(self, store: ObjectStore, blobs: Blobs, tags: Tags, *, allow_sparse: bool) -> None:
        self._store, self._blobs, self._tags = store, blobs, tags
        self._allow_sparse = allow_sparse
        self._records = Records(store)
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
            if await self._records.exists(repository, reference, value.generation):
                record = await self._records.read(repository, reference, value.generation)
                if record is not None:
                    return record.manifest
        return (await self._newest(repository, reference)).manifest

    async def put(
        self, repository: RepositoryName, manifest: Manifest, tags: Sequence[Tag], condition: TagCondition
    ) -> Descriptor:
        """Stores a manifest and moves tags to it; see ``Writer.push_manifest``."""
        if Digest.of(manifest.content, manifest.digest.algorithm) != manifest.digest:
            raise DigestInvalid("manifest does not have this digest", detail={"digest": str(manifest.digest)})
        edges = await self._edges(repository, manifest)
        await self._tags.check(repository, tags, condition)
        for _ in range(_ATTEMPTS):
            record = _new_record(manifest, edges)
            await self._publish(repository, record, edges)
            await self._move_tags(repository, record, tags, condition)
            if await self._is_safe(repository, manifest.digest, record.generation):
                return manifest.descriptor
            if condition != ANY_VALUE:
                condition = TagCondition(digest=manifest.digest)  # the tag is ours by now, unless somebody moved it on
        raise Unavailable("the manifest was deleted while it was put, again and again")

    async def delete(self, repository: RepositoryName, digest: Digest) -> None:
        """Removes a manifest and its tags; see ``Deleter.delete_manifest``."""
        generations = await self._records.generations(repository, digest)
        if not generations:
            raise _unknown(digest)
        tags = await self._tags.of_manifest(repository, digest)
        async with self._store.batch():
            for tag in tags:
                await self._untag(repository, tag, digest)
            for generation in generations:
                record = await self._records.read(repository, digest, generation)
                await self._records.delete(repository, digest, generation)
                if record is not None:
                    await self._drop_traces(repository, record)
            for tag in tags:
                await self._store.delete(layout.tagged(repository, digest, tag))

    async def check_unreferenced(self, repository: RepositoryName, blob: Digest) -> None:
        """Refuses if a manifest of the repository needs the blob.

        Raises:
            BlobReferenced: it does; the detail names the manifest.
        """
        prefix = layout.links(repository, blob)
        wanted = {
            e.key[len(prefix) + 2 :]
            async for e in self._store.list(prefix)
            if isinstance(e, ObjectInfo) and not layout.is_upload_link(e.key)
        }
        if not wanted:
            return
        async for entry in self._store.list(layout.repository_manifests(repository)):
            *_, algorithm, encoded, generation = (entry.key if isinstance(entry, ObjectInfo) else "//").split("/")
            if generation in wanted:
                detail = {"digest": str(blob), "manifest": f"{algorithm}:{encoded}"}
                raise BlobReferenced(detail=detail)

    async def _newest(self, repository: RepositoryName, digest: Digest) -> Record:
        record = await self._records.newest(repository, digest)
        if record is None:
            raise _unknown(digest)
        return record

    async def _edges(self, repository: RepositoryName, manifest: Manifest) -> _Edges:
        """What the manifest references; refuses it if something is not there and sparse manifests are not allowed."""
        document = manifest.document
        blobs, lacking = await _split(document.blobs, lambda digest: self._blobs.is_linked(repository, digest))
        children, orphans = await _split(document.manifests, lambda digest: self._has(repository, digest))
        if (lacking or orphans) and not self._allow_sparse:
            raise _missing([*lacking, *orphans])
        return _Edges(blobs, children)

    async def _has(self, repository: RepositoryName, digest: Digest) -> bool:
        return bool(await self._records.generations(repository, digest))

    async def _publish(self, repository: RepositoryName, record: Record, edges: _Edges) -> None:
        """Writes edges, links and record, durable together; takes them back if something they rely on is condemned."""
        manifest, generation = record.manifest, record.generation
        pending = layout.pending(repository, manifest.digest, generation)
        async with self._store.batch():
            try:
                await self._store.put(pending, "\n".join(map(str, (*edges.blobs, *edges.manifests))).encode())
                for digest in edges.blobs:
                    await self._store.put(layout.manifest_link(repository, digest, generation), b"")
                await self._check_edges(repository, edges)
                await self._records.put(repository, record)
                if record.header.subject:
                    subject = Digest.parse(record.header.subject)
                    await self.referrers.add(repository, subject, manifest, generation)
                await self._check_edges(repository, edges)
            except ManifestBlobUnknown:
                await self._records.delete(repository, manifest.digest, generation)
                await self._drop_traces(repository, record)
                raise
            finally:
                await self._store.delete(pending)

    async def _check_edges(self, repository: RepositoryName, edges: _Edges) -> None:
        """Whether everything referenced may be relied on: not condemned, and still there.

        Raises:
            ManifestBlobUnknown: what may not.
        """
        missing: list[Digest] = []
        for digest in edges.blobs:
            try:
                await self._blobs.usable(digest)
            except BlobUnknown:
                missing.append(digest)
        for digest in edges.manifests:
            generations = await self._records.generations(repository, digest)
            if not any([await self._is_safe(repository, digest, generation) for generation in generations]):
                missing.append(digest)
        if missing:
            raise _missing(missing)

    async def _is_safe(self, repository: RepositoryName, digest: Digest, generation: str) -> bool:
        """Doom first, then the record itself: in this order (DESIGN 4)."""
        return not await self._blobs.is_doomed(generation) and await self._records.exists(
            repository, digest, generation
        )

    async def _move_tags(
        self, repository: RepositoryName, record: Record, tags: Sequence[Tag], condition: TagCondition
    ) -> None:
        if not tags:
            return
        async with self._store.batch():
            for tag in tags:
                await self._tags.swap(repository, tag, record.manifest.descriptor, record.generation, condition)

    async def _untag(self, repository: RepositoryName, tag: Tag, digest: Digest) -> None:
        try:
            await self._tags.delete(repository, tag, only=digest)
        except ManifestUnknown:
            return  # the tag has gone, or moved on, since it was marked

    async def _drop_traces(self, repository: RepositoryName, record: Record) -> None:
        """Takes away what a record put beside itself: its entry under its subject and its links."""
        digest, generation, header = record.manifest.digest, record.generation, record.header
        if header.subject:
            await self.referrers.remove(repository, Digest.parse(header.subject), digest, generation)
        for blob in header.blobs:
            await self._store.delete(layout.manifest_link(repository, Digest.parse(blob), generation))


async def _split(
    descriptors: Iterable[Descriptor], is_there: Callable[[Digest], Awaitable[bool]]
) -> tuple[tuple[Digest, ...], tuple[Digest, ...]]:
    """The digests that are there and those that are not, each once."""
    there: list[Digest] = []
    absent: list[Digest] = []
    for digest in dict.fromkeys(d.digest for d in descriptors):
        (there if await is_there(digest) else absent).append(digest)
    return tuple(there), tuple(absent)


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
