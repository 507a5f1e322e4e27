"""Manifest records: what is stored of one manifest each time it is put.

Law: a record is one header line of JSON and then the manifest's exact bytes; it is believed only if those bytes hash to
the digest it lies under, on every read from the store (promise M2). A torn record is an absent one.
Law of publishing: a record begins as a reservation, the header alone. It counts for the collector and for nobody else.
Who publishes swaps the bytes in; who takes an old reservation for abandoned swaps ``CONDEMNED`` in, or removes it: the
store lets one of them win, so a writer that was suspended for days can never publish edges that nobody kept. Once its
key is gone, a generation never comes back, and all that bears its name is garbage.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Final

import msgspec
from moorage.registry.oci import Digest, Manifest, RepositoryName
from moorage.registry.store import layout
from moorage.storage_backends.base import ABSENT, ObjectInfo, ObjectStore, read_all
from moorage.storage_backends.errors import KeyNotFound

__all__ = ["CONDEMNED", "Header", "Record", "Records"]

CONDEMNED: Final = b""
"""What a reservation holds that was given up. Never the bytes of a reservation: some stores' versions are hashes."""

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

    async def reserve(self, repository: RepositoryName, record: Record) -> str:
        """Writes down what a manifest will reference; returns the version that ``publish`` and ``withdraw`` need."""
        key = layout.manifest_record(repository, record.manifest.digest, record.generation)
        return await self._store.put(key, _encode(record.header), expect=ABSENT)

    async def publish(self, repository: RepositoryName, record: Record, version: str) -> None:
        """Makes a reserved record visible.

        Raises:
            Conflict: the reservation was given up.
        """
        key = layout.manifest_record(repository, record.manifest.digest, record.generation)
        await self._store.put(key, _encode(record.header) + record.manifest.content, expect=version)

    async def withdraw(self, repository: RepositoryName, record: Record, version: str) -> None:
        """Gives a reservation up, for ever.

        Raises:
            Conflict: it was published.
        """
        key = layout.manifest_record(repository, record.manifest.digest, record.generation)
        if self._store.capabilities.conditional_delete:
            await self._store.delete(key, expect=version)
        else:
            await self._store.put(key, CONDEMNED, expect=version)
            await self._store.delete(key)

    async def newest(self, repository: RepositoryName, digest: Digest) -> Record | None:
        """The newest record of a manifest; None if there is none."""
        for generation in reversed(await self._generations(repository, digest)):
            record = await self._read(repository, digest, generation)
            if record is not None:
                return record
        return None

    async def all(self, repository: RepositoryName, digest: Digest) -> list[Record]:
        """The records of a manifest, oldest first."""
        generations = await self._generations(repository, digest)
        found = [await self._read(repository, digest, generation) for generation in generations]
        return [record for record in found if record is not None]

    async def find(self, repository: RepositoryName, digest: Digest, generation: str) -> Record | None:
        """One record, as it is now; None if it is not there."""
        if generation in self._cache and not await self.exists(repository, digest, generation):
            return None
        return await self._read(repository, digest, generation)

    async def exists(self, repository: RepositoryName, digest: Digest, generation: str) -> bool:
        """Whether this record or its reservation is there now; never answered from the cache."""
        try:
            await self._store.stat(layout.manifest_record(repository, digest, generation))
        except KeyNotFound:
            return False
        return True

    async def _generations(self, repository: RepositoryName, digest: Digest) -> list[str]:
        prefix = layout.manifest_records(repository, digest)
        return [e.key[len(prefix) :] async for e in self._store.list(prefix) if isinstance(e, ObjectInfo)]

    async def _read(self, repository: RepositoryName, digest: Digest, generation: str) -> Record | None:
        """A record that was there a moment ago; None if it is gone after all, not published, or torn."""
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


def _encode(header: Header) -> bytes:
    return msgspec.json.encode(header) + b"\n"


def _decode(raw: bytes, digest: Digest, generation: str) -> Record | None:
    head, _, content = raw.partition(b"\n")
    if not content:
        return None  # reserved, or given up: no manifest is empty
    if Digest.of(content, digest.algorithm) != digest:
        _log.error("manifest record %s of %s does not hash to its digest; it is not served", generation, digest)
        return None
    try:
        header = msgspec.json.decode(head, type=Header)
    except msgspec.DecodeError:
        _log.error("manifest record %s of %s has a torn header; it is not served", generation, digest)
        return None
    return Record(Manifest(header.media_type, content, digest), generation, header)
