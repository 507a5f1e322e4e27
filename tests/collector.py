"""A toy collector that follows DESIGN 4 to the letter, and can be told to leave parts out.

mark · doom what nobody needs · mark again · delete marker and data of what still nobody needs, give a fresh copy to
what somebody does · remove the dooms of deleted generations last. Besides: an older generation goes when a newer
undoomed one exists, looked for again after its doom is written; links of pushes go when they are older than the grace.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from moorage.registry.oci import Digest
from moorage.registry.store import layout
from moorage.storage_backends.base import CommonPrefix, ObjectStore, read_all
from moorage.storage_backends.errors import KeyNotFound

__all__ = ["GRACE", "Collector", "Omissions"]

GRACE = 24 * 3600.0
"""Seconds for which whatever was written stays (promise M6)."""


@dataclass(frozen=True, slots=True)
class Omissions:
    """What a broken collector leaves out or does wrongly."""

    second_mark: bool = False
    doom_until_the_end: bool = False
    newer_looked_for_again: bool = False
    pending: bool = False


@dataclass(frozen=True, slots=True)
class _Generation:
    marker: str
    digest: Digest
    name: str
    size: int
    age: float


class Collector:
    """One run over a store. Any number may run at once."""

    def __init__(self, store: ObjectStore, now: float, omissions: Omissions = Omissions()) -> None:  # frozen
        self._store, self._now, self._omit = store, now, omissions

    async def run(self) -> None:
        """Collects once."""
        needed = await self._mark()
        generations = [found async for found in self._generations()]
        old = [found for found in generations if found.age > GRACE]
        unneeded = [found for found in old if found.digest not in needed]
        superseded = [found for found in old if found not in unneeded and await self._newer(found)]
        for generation in (*unneeded, *superseded):
            await self._store.put(layout.doom(generation.name), b"")
            if self._omit.doom_until_the_end:
                await self._store.delete(layout.doom(generation.name))
        needed = needed if self._omit.second_mark else await self._mark()
        for generation in unneeded:
            await (self._rescue(generation) if generation.digest in needed else self._delete(generation))
        for generation in superseded:
            if self._omit.newer_looked_for_again or await self._newer(generation):
                await self._delete(generation)
            else:
                await self._rescue(generation)
        await self._drop_old_links()

    async def _mark(self) -> set[Digest]:
        """Every digest that something refers to. Pending edges first: they may become records while we scan."""
        needed: set[Digest] = set()
        if not self._omit.pending:
            async for key, content in self._contents("pending/"):
                if key:
                    needed.update(Digest.parse(line) for line in content.decode().split("\n") if line)
        async for _, content in self._contents("manifests/"):
            needed.update(map(Digest.parse, json.loads(content.partition(b"\n")[0]).get("blobs", ())))
        async for entry in self._store.list("links/"):
            if not isinstance(entry, CommonPrefix) and layout.is_upload_link(entry.key):
                _, _, algorithm, encoded, _ = entry.key.split("/")
                if entry.modified > self._now - GRACE:
                    needed.add(Digest(algorithm, encoded))
        return needed

    async def _contents(self, prefix: str) -> AsyncIterator[tuple[str, bytes]]:
        async for entry in self._store.list(prefix):
            if isinstance(entry, CommonPrefix):
                continue
            try:
                content, _ = await read_all(self._store, entry.key)
            except KeyNotFound:
                continue  # gone since it was listed, so its writer has withdrawn it or moved it to its record
            yield entry.key, content

    async def _generations(self, prefix: str = "blobs/") -> AsyncIterator[_Generation]:
        async for entry in self._store.list(prefix):
            parsed = layout.parse_marker(entry.key) if not isinstance(entry, CommonPrefix) else None
            if parsed is not None and not isinstance(entry, CommonPrefix):
                _, algorithm, _, encoded, _ = entry.key.split("/")
                yield _Generation(entry.key, Digest(algorithm, encoded), *parsed, self._now - entry.modified)

    async def _newer(self, generation: _Generation) -> bool:
        """Whether the digest has a newer generation that is not condemned."""
        async for other in self._generations(layout.blob_markers(generation.digest)):
            if other.name > generation.name and not await self._is_doomed(other.name):
                return True
        return False

    async def _is_doomed(self, name: str) -> bool:
        try:
            await self._store.stat(layout.doom(name))
        except KeyNotFound:
            return False
        return True

    async def _rescue(self, generation: _Generation) -> None:
        """A doom is never taken back: what turned out to be needed gets a new generation."""
        fresh = layout.new_generation()
        try:
            await self._store.copy(layout.data(generation.name), layout.data(fresh))
        except KeyNotFound:
            return  # another collector was here
        await self._store.put(layout.blob_marker(generation.digest, fresh, generation.size), b"")

    async def _delete(self, generation: _Generation) -> None:
        await self._store.delete(generation.marker)
        await self._store.delete(layout.data(generation.name))
        await self._store.delete(layout.doom(generation.name))

    async def _drop_old_links(self) -> None:
        async for entry in self._store.list("links/"):
            if isinstance(entry, CommonPrefix) or not layout.is_upload_link(entry.key):
                continue
            if entry.modified < self._now - GRACE:
                await self._store.delete(entry.key)
