"""Referrers: one small object for each manifest that has a subject; listing them is listing keys.

Law: there is no index document, so there is nothing to read, modify and write (rule S2).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from moorage.registry.oci import Descriptor, Digest, Manifest, ManifestInvalid, RepositoryName
from moorage.registry.store import layout
from moorage.storage_backends.base import ObjectInfo, ObjectStore, read_all
from moorage.storage_backends.errors import KeyNotFound

__all__ = ["Referrers"]


class Referrers:
    """The referrers of all subjects."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def add(self, repository: RepositoryName, subject: Digest, manifest: Manifest, generation: str) -> None:
        """Lists a manifest under its subject, which need not exist."""
        entry = json.dumps(manifest.as_referrer().to_json(), separators=(",", ":"))
        await self._store.put(layout.referrer(repository, subject, manifest.digest, generation), entry.encode())

    async def remove(self, repository: RepositoryName, subject: Digest, digest: Digest, generation: str) -> None:
        """Takes one record of a manifest off its subject's list."""
        await self._store.delete(layout.referrer(repository, subject, digest, generation))

    async def list(
        self, repository: RepositoryName, subject: Digest, artifact_type: str | None, after: str
    ) -> AsyncIterator[Descriptor]:
        """The referrers of a subject by digest, each once, from behind the digest ``after``."""
        prefix = layout.referrers(repository, subject)
        last: Digest | None = None
        async for entry in self._store.list(prefix, after=layout.digest_after(prefix, after) if after else ""):
            if not isinstance(entry, ObjectInfo) or layout.digest_at(entry.key) == last:
                continue
            descriptor = await self._read(entry.key)
            if descriptor is None:
                continue
            last = descriptor.digest
            if artifact_type is None or descriptor.artifact_type == artifact_type:
                yield descriptor

    async def _read(self, key: str) -> Descriptor | None:
        """One entry; None if it was deleted meanwhile or torn by a power cut before it was acknowledged."""
        try:
            raw, _ = await read_all(self._store, key)
            return Descriptor.from_json(json.loads(raw), field="referrer")
        except (KeyNotFound, ManifestInvalid, ValueError):
            return None
