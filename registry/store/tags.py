"""Tags: each is one value, changed by compare-and-swap only.

Law: a tag is a linearizable register (promise M4). Nobody writes it without having read what it replaces; deleting
swaps in a tombstone, so that a late writer cannot bring an old value back; what is replaced goes into the history.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec
from moorage.registry.oci import (
    Descriptor,
    Digest,
    ManifestUnknown,
    PreconditionFailed,
    RepositoryName,
    Tag,
    TagCondition,
    Unavailable,
)
from moorage.registry.store import layout
from moorage.storage_backends.base import ABSENT, Expect, ObjectInfo, ObjectStore, read_all
from moorage.storage_backends.errors import Conflict, KeyNotFound

__all__ = ["TOMBSTONE_SIZE", "TagValue", "Tags"]

_log = logging.getLogger(__name__)
TOMBSTONE_SIZE: Final = 128
"""Tombstones are smaller, values larger, so that a listing tells them apart without reading (DESIGN 4)."""

_ATTEMPTS: Final = 1000
"""Swaps that may be lost to others; each lost one is somebody else's success."""


class TagValue(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a tag holds. A tombstone has only ``seq`` and ``nonce``. ``time``: Unix seconds; ``size``: bytes."""

    seq: int
    nonce: str
    digest: str = ""
    generation: str = ""
    media_type: str = ""
    size: int = 0
    time: float = 0.0

    @property
    def is_live(self) -> bool:
        """Whether the tag names a manifest."""
        return bool(self.digest)

    @property
    def descriptor(self) -> Descriptor:
        """The manifest that the tag names."""
        return Descriptor(self.media_type, Digest.parse(self.digest), self.size)


@dataclass(frozen=True, slots=True)
class _Current:
    """A tag as it was read: its value, if it ever had one, and what the store must still hold for a swap."""

    value: TagValue | None
    expect: Expect

    @property
    def live(self) -> TagValue | None:
        return self.value if self.value is not None and self.value.is_live else None

    @property
    def next_seq(self) -> int:
        return self.value.seq + 1 if self.value is not None else 1


class Tags:
    """The tags of all repositories."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def read(self, repository: RepositoryName, tag: Tag) -> TagValue:
        """What the tag names.

        Raises:
            ManifestUnknown: the repository has no such tag.
        """
        value = (await self._current(repository, tag)).live
        if value is None:
            raise _unknown(tag)
        return value

    async def check(self, repository: RepositoryName, tags: Sequence[Tag], condition: TagCondition) -> None:
        """Refuses a hopeless write before anything is stored.

        Raises:
            PreconditionFailed: a tag is not what ``condition`` asks for.
        """
        if condition.absent or condition.digest is not None:
            for tag in tags:
                _check(tag, (await self._current(repository, tag)).live, condition)

    async def swap(
        self, repository: RepositoryName, tag: Tag, descriptor: Descriptor, generation: str, condition: TagCondition
    ) -> None:
        """Makes the tag name a manifest that is already stored, and its marker under ``tagged/`` with it.

        Raises:
            PreconditionFailed: the tag is not what ``condition`` asks for.
        """

        def to_manifest(current: _Current) -> TagValue:
            _check(tag, current.live, condition)
            return _value(current, descriptor, generation)

        await self._change(repository, tag, to_manifest)

    async def follow(
        self, repository: RepositoryName, tag: Tag, descriptor: Descriptor, old: str, generation: str
    ) -> None:
        """Makes the tag name the generation that replaces ``old``; a tag that moved on since stays where it is."""

        def to_replacement(current: _Current) -> TagValue | None:
            live = current.live
            return _value(current, descriptor, generation) if live is not None and live.generation == old else None

        await self._change(repository, tag, to_replacement)

    async def delete(self, repository: RepositoryName, tag: Tag, *, only: Digest | None = None) -> None:
        """Removes the tag; with ``only``, if it names that manifest.

        Raises:
            ManifestUnknown: the repository has no such tag, or it names something else.
        """

        def to_tombstone(current: _Current) -> TagValue:
            live = current.live
            if live is None or (only is not None and live.digest != str(only)):
                raise _unknown(tag)
            return TagValue(seq=current.next_seq, nonce=secrets.token_hex(8))

        await self._change(repository, tag, to_tombstone)

    async def list(self, repository: RepositoryName, after: str) -> AsyncIterator[Tag]:
        """Live tags in byte order, from behind ``after``."""
        prefix = layout.tags(repository)
        async for entry in self._store.list(prefix, after=f"{prefix}{after}" if after else ""):
            if isinstance(entry, ObjectInfo) and entry.size >= TOMBSTONE_SIZE:
                yield Tag(entry.key[len(prefix) :])

    async def of_manifest(self, repository: RepositoryName, digest: Digest) -> Sequence[Tag]:
        """Tags that may name this manifest, each once."""
        keys = [
            entry.key
            async for entry in self._store.list(layout.tags_of_manifest(repository, digest))
            if isinstance(entry, ObjectInfo)
        ]
        return list(dict.fromkeys(layout.parse_tagged(key)[0] for key in keys))

    async def drop_markers(self, repository: RepositoryName, digest: Digest, generation: str) -> None:
        """Forgets which tags may name a generation of a manifest that is gone."""
        async for entry in self._store.list(layout.tags_of_manifest(repository, digest)):
            if isinstance(entry, ObjectInfo) and layout.parse_tagged(entry.key)[1] == generation:
                await self._store.delete(entry.key)

    async def _current(self, repository: RepositoryName, tag: Tag) -> _Current:
        try:
            raw, info = await read_all(self._store, layout.tag(repository, tag))
        except KeyNotFound:
            return _Current(None, ABSENT)
        try:
            return _Current(msgspec.json.decode(raw, type=TagValue), info.version)
        except msgspec.DecodeError:
            # Only a disk that lies about its syncs leaves this. The next push of the tag mends it.
            _log.error("tag %s of %s cannot be read; it is treated as absent", tag, repository)
            return _Current(None, info.version)

    async def _change(
        self, repository: RepositoryName, tag: Tag, decide: Callable[[_Current], TagValue | None]
    ) -> None:
        """Swaps in what ``decide`` makes of the current value, again and again until nobody came between."""
        for _ in range(_ATTEMPTS):
            current = await self._current(repository, tag)
            value = decide(current)
            if value is None:
                return
            if current.live is not None:
                await self._remember(repository, tag, current.live)
            with suppress(Conflict):
                await self._store.put(layout.tag(repository, tag), msgspec.json.encode(value), expect=current.expect)
                return
        raise Unavailable("the tag changes too fast", detail={"tag": str(tag)})

    async def _remember(self, repository: RepositoryName, tag: Tag, old: TagValue) -> None:
        key = layout.history(repository, tag, old.seq, Digest.parse(old.digest))
        await self._store.put(key, msgspec.json.encode(old))


def _value(current: _Current, descriptor: Descriptor, generation: str) -> TagValue:
    return TagValue(
        seq=current.next_seq,
        nonce=secrets.token_hex(8),
        digest=str(descriptor.digest),
        generation=generation,
        media_type=descriptor.media_type,
        size=descriptor.size,
        time=time.time(),
    )


def _check(tag: Tag, live: TagValue | None, condition: TagCondition) -> None:
    found = live.digest if live is not None else None
    if condition.absent and live is not None:
        raise PreconditionFailed("the tag exists already", detail={"tag": str(tag), "digest": found})
    if condition.digest is not None and found != str(condition.digest):
        raise PreconditionFailed("the tag names another manifest", detail={"tag": str(tag), "digest": found})


def _unknown(tag: Tag) -> ManifestUnknown:
    return ManifestUnknown(detail={"tag": str(tag)})
