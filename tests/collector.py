"""A toy collector that follows DESIGN 4 to the letter, and can be told to leave parts out.

give up reservations older than the grace · mark · doom what nobody needs · mark again · delete bytes and marker of what
nobody needs now · remove the dooms of deleted generations last · copy what is needed and has condemned copies only.

Besides: an older generation goes when a newer sound one exists, looked for again once its doom is written; so do old
bytes without a marker, and markers without bytes; links of pushes go, if nobody renewed them, when they are older than
GRACE + REFRESH; and all that bears the name of a manifest record goes when that record's key is gone.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from moorage.registry.oci import Digest
from moorage.registry.store import layout
from moorage.registry.store.links import GRACE, REFRESH
from moorage.registry.store.records import CONDEMNED
from moorage.storage_backends.base import ObjectInfo, ObjectStore, read_all
from moorage.storage_backends.errors import Conflict, KeyNotFound

__all__ = ["GRACE", "KEEP", "NOTHING", "Collector", "Omissions"]

KEEP = GRACE + REFRESH
"""Seconds for which a link keeps its blob: it may have been REFRESH old when somebody was told of the blob."""


@dataclass(frozen=True, slots=True)
class Omissions:
    """What a broken collector leaves out or does wrongly."""

    second_mark: bool = False
    doom_until_the_end: bool = False
    reservations: bool = False
    giving_up: bool = False


NOTHING = Omissions()


@dataclass(frozen=True, slots=True)
class _Generation:
    """One copy of a blob. ``size``: bytes; ``age``: seconds."""

    marker: str
    digest: Digest
    name: str
    size: int
    age: float


class Collector:
    """Collects from a store. Any number may run at once. ``clock``: the store's, in seconds."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Callable[[], float],
        omissions: Omissions = NOTHING,
    ) -> None:
        self._store, self._clock, self._omit = store, clock, omissions

    async def run(self) -> None:
        """Collects once."""
        await self._give_up_reservations()
        await self._sweep_traces()
        needed = await self._mark()
        generations = [found async for found in self._generations()]
        unneeded = [found for found in generations if found.age > GRACE and found.digest not in needed]
        superseded = [found for found in generations if found not in unneeded and await self._is_superseded(found)]
        lost = await self._unmarked(generations)
        await self._doom([*(found.name for found in (*unneeded, *superseded)), *lost])
        needed = needed if self._omit.second_mark else await self._mark()
        for generation in unneeded:
            if generation.digest not in needed:
                await self._delete(generation)
        for generation in superseded:
            if await self._is_superseded(generation):
                await self._delete(generation)
        await self._delete_unmarked(lost)
        await self._rescue(needed)
        await self._drop_old_links()
        await self._drop_old_dooms()

    async def _give_up_reservations(self) -> None:
        """From here on an abandoned put can no longer be published, so its edges need not count."""
        async for entry in self._old("manifests/", float("inf") if self._omit.giving_up else GRACE):
            content = await self._content(entry.key)
            if content is not None and content != CONDEMNED and not content.partition(b"\n")[2]:
                try:
                    await self._store.put(entry.key, CONDEMNED, expect=entry.version)
                except Conflict:
                    continue  # it was published, or another collector was here

    async def _sweep_traces(self) -> None:
        """Removes what bears the name of a record that is gone or given up; then the records given up."""
        given_up = [entry.key async for entry in self._entries("manifests/") if entry.size == len(CONDEMNED)]
        for prefix in ("links/", "tagged/", "referrers/"):
            async for entry in self._entries(prefix):
                record = _record_of(entry.key)
                if record is not None and (record in given_up or await self._is_absent(record)):
                    await self._store.delete(entry.key)
        for key in given_up:
            await self._store.delete(key)

    async def _mark(self) -> set[Digest]:
        """Every digest that something refers to."""
        needed: set[Digest] = set()
        async for entry in self._entries("manifests/"):
            content = await self._content(entry.key) or CONDEMNED
            header, _, manifest = content.partition(b"\n")
            is_old = self._omit.giving_up and entry.modified < self._clock() - GRACE
            if header and (manifest or not (self._omit.reservations or is_old)):
                needed.update(map(Digest.parse, json.loads(header).get("blobs", ())))
        async for entry in self._entries("links/"):
            if layout.is_upload_link(entry.key) and entry.modified >= self._clock() - KEEP:
                needed.add(_digest_of_blob(entry.key))
        return needed

    async def _generations(self, prefix: str = "blobs/") -> AsyncIterator[_Generation]:
        async for entry in self._entries(prefix):
            parsed = layout.parse_marker(entry.key)
            if parsed is not None:
                _, algorithm, _, encoded, _ = entry.key.split("/")
                yield _Generation(entry.key, Digest(algorithm, encoded), *parsed, self._clock() - entry.modified)

    async def _unmarked(self, generations: list[_Generation]) -> list[str]:
        """Old bytes that no marker speaks of."""
        marked = {generation.name for generation in generations}
        names = [entry.key.rpartition("/")[2] async for entry in self._old("data/", GRACE)]
        return [name for name in names if name not in marked]

    async def _delete_unmarked(self, names: list[str]) -> None:
        marked = {generation.name async for generation in self._generations()} if names else set()
        for name in names:
            if name not in marked:  # else its writer was only slow; it will see the doom, or has the blob rescued
                await self._store.delete(layout.data(name))
                await self._store.delete(layout.doom(name))

    async def _doom(self, names: list[str]) -> None:
        for name in names:
            await self._store.put(layout.doom(name), b"")
            if self._omit.doom_until_the_end:
                await self._store.delete(layout.doom(name))

    async def _is_superseded(self, generation: _Generation) -> bool:
        """Whether the digest has a newer sound generation, or, for one that is condemned, any."""
        is_doomed = not await self._is_absent(layout.doom(generation.name))
        async for other in self._generations(layout.blob_markers(generation.digest)):
            if (other.name > generation.name or is_doomed) and await self._is_sound(other.name):
                return True
        return False

    async def _is_sound(self, name: str) -> bool:
        return await self._is_absent(layout.doom(name)) and not await self._is_absent(layout.data(name))

    async def _rescue(self, needed: set[Digest]) -> None:
        """A doom is never taken back: where all generations of what is needed are condemned, the newest gets a copy."""
        for digest in sorted(needed):
            generations = [found async for found in self._generations(layout.blob_markers(digest))]
            if generations and not any([await self._is_sound(found.name) for found in generations]):
                await self._copy(generations[-1])

    async def _copy(self, generation: _Generation) -> None:
        fresh = layout.new_generation()
        try:
            await self._store.copy(layout.data(generation.name), layout.data(fresh))
        except KeyNotFound:
            return  # another collector was here
        await self._store.put(layout.blob_marker(generation.digest, fresh, generation.size), b"")

    async def _delete(self, generation: _Generation) -> None:
        await self._store.delete(layout.data(generation.name))
        await self._store.delete(generation.marker)
        await self._store.delete(layout.doom(generation.name))

    async def _drop_old_links(self) -> None:
        async for entry in self._old("links/", KEEP):
            if layout.is_upload_link(entry.key):
                try:
                    await self._store.delete(entry.key, expect=entry.version)
                except Conflict:
                    continue  # renewed since

    async def _drop_old_dooms(self) -> None:
        """Removes what crashed collectors left: markers without bytes, dooms without either."""
        marked = set()
        async for generation in self._generations():
            if await self._is_absent(layout.data(generation.name)):
                await self._store.delete(generation.marker)
            else:
                marked.add(generation.name)
        async for entry in self._entries("doom/"):
            name = entry.key.rpartition("/")[2]
            if name not in marked and await self._is_absent(layout.data(name)):
                await self._store.delete(entry.key)

    async def _entries(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        async for entry in self._store.list(prefix):
            if isinstance(entry, ObjectInfo):
                yield entry

    async def _old(self, prefix: str, seconds: float) -> AsyncIterator[ObjectInfo]:
        async for entry in self._entries(prefix):
            if entry.modified < self._clock() - seconds:
                yield entry

    async def _content(self, key: str) -> bytes | None:
        try:
            return (await read_all(self._store, key))[0]
        except KeyNotFound:
            return None

    async def _is_absent(self, key: str) -> bool:
        try:
            await self._store.stat(key)
        except KeyNotFound:
            return True
        return False


def _digest_of_blob(key: str) -> Digest:
    _, _, algorithm, encoded, _ = key.split("/")
    return Digest(algorithm, encoded)


def _record_of(key: str) -> str | None:
    """The key of the record whose name is in a link, a tag's marker or a referrer; None for the link of a push."""
    kind, name, algorithm, encoded, last = key.split("/")
    match kind:
        case "links":
            held = layout.parse_manifest_link(key)
            return held and f"manifests/{name}/{held[0].algorithm}/{held[0].hex}/{held[1]}"
        case "tagged":
            return f"manifests/{name}/{algorithm}/{encoded}/{last.rpartition('.')[2]}"
        case _:
            digest, _, generation = last.partition(".")
            return f"manifests/{name}/{digest.replace('-', '/', 1)}/{generation}"
