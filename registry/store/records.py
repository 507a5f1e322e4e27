"""Manifest records: what is stored of one manifest each time it is put.

Law: a record is one header line of JSON and then the manifest's exact bytes; it is believed only if those bytes hash to
the digest it lies under, on every read from the store (promise M2). A torn record is an absent one.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Final

import msgspec
from moorage.registry.oci import Digest, Manifest, RepositoryName
from moorage.registry.store import layout
from moorage.storage_backends.base import ObjectInfo, ObjectStore, read_all
from moorage.storage_backends.errors import KeyNotFound

__all__ = ["Header", "Record", "Records"]

_log = logging.getLogger(__name__)
_CACHE_BYTES: Final = 64 * 1024 * 1024
_OVERHEAD: Final = 1024


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a record says of its manifest besides the bytes. ``time``: Unix seconds."""

    media_type: str
    time: float
    blobs: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()
    subject: str = ""


class Record(msgspec.Struct, frozen=True):
    """A stored manifest, its generation and its header."""

    manifest: Manifest
    generation: str
    header: Header


class Records:
    """Reads and writes the records of all repositories; caches them by generation, which never changes."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._cache: OrderedDict[str, Record] = OrderedDict()
        self._cached = 0

    async def put(self, repository: RepositoryName, record: Record) -> None:
        """Publishes a record: from now on readers see the manifest."""
        key = layout.manifest_record(repository, record.manifest.digest, record.generation)
        await self._store.put(key, msgspec.json.encode(record.header) + b"\n" + record.manifest.content)

    async def newest(self, repository: RepositoryName, digest: Digest) -> Record | None:
        """The newest whole record of a manifest; None if there is none."""
        for generation in reversed(await self.generations(repository, digest)):
            record = await self.read(repository, digest, generation)
            if record is not None:
                return record
        return None

    async def generations(self, repository: RepositoryName, digest: Digest) -> list[str]:
        """The generations of a manifest's records, oldest first."""
        prefix = layout.manifest_records(repository, digest)
        return [e.key[len(prefix) :] async for e in self._store.list(prefix) if isinstance(e, ObjectInfo)]

    async def exists(self, repository: RepositoryName, digest: Digest, generation: str) -> bool:
        """Whether this record is there now; never answered from the cache."""
        try:
            await self._store.stat(layout.manifest_record(repository, digest, generation))
        except KeyNotFound:
            return False
        return True

    async def read(self, repository: RepositoryName, digest: Digest, generation: str) -> Record | None:
        """One record, which the caller knows to exist; None if it is gone after all, or torn."""
        cached = self._cache.get(generation)
        if cached is not None:
            self._cache.move_to_end(generation)
            return cached
        try:
            raw, _ = await read_all(self._store, layout.manifest_record(repository, digest, generation))
        except KeyNotFound:
            return None
        record = _decode(raw, digest, generation)
        if record is not None:
            self._remember(record)
        return record

    async def delete(self, repository: RepositoryName, digest: Digest, generation: str) -> None:
        """Takes a record away."""
        await self._store.delete(layout.manifest_record(repository, digest, generation))
        self._forget(generation)

    def _remember(self, record: Record) -> None:
        self._cache[record.generation] = record
        self._cached += len(record.manifest.content) + _OVERHEAD
        while self._cached > _CACHE_BYTES:
            self._forget(next(iter(self._cache)))

    def _forget(self, generation: str) -> None:
        record = self._cache.pop(generation, None)
        if record is not None:
            self._cached -= len(record.manifest.content) + _OVERHEAD


def _decode(raw: bytes, digest: Digest, generation: str) -> Record | None:
    head, _, content = raw.partition(b"\n")
    if Digest.of(content, digest.algorithm) != digest:
        _log.error("manifest record %s of %s does not hash to its digest; it is not served", generation, digest)
        return None
    header = msgspec.json.decode(head, type=Header)
    return Record(Manifest(header.media_type, content, digest), generation, header)
