"""What a registry promised, told from what was asked and answered; and whether it kept it (``DESIGN.md`` section 5).

Law: only answers bind. A deed that was refused changed nothing; one that broke off, or is not over, may have done any
part of its work. A deed counts as before another only if it was over when the other began.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum

from moorage.registry.oci import (
    BlobUnknown,
    Digest,
    ManifestUnknown,
    OciError,
    Registry,
    RepositoryName,
    Tag,
    Unavailable,
)
from moorage.registry.store import layout
from moorage.registry.store.links import GRACE
from moorage.storage_backends.base import ObjectInfo, ObjectStore, read_all

from tests.content import Content, read_bytes

__all__ = ["Kind", "Ledger", "Outcome", "leaks"]


class Kind(Enum):
    """What was asked."""

    ADD_BLOB = "push, mount"
    ASK_BLOB = "HEAD for push"
    PUT = "put manifest"
    DELETE_BLOB = "delete blob"
    DELETE_MANIFEST = "delete manifest"
    DELETE_TAG = "delete tag"


class Outcome(Enum):
    """What was answered."""

    OPEN = "nothing yet, or nothing ever"
    DONE = "done"
    REFUSED = "refused, nothing changed"


@dataclass(slots=True)
class Deed:
    """A request from its first to its last moment. ``time``: seconds when it began, for what it says was true then."""

    kind: Kind
    place: RepositoryName
    digest: Digest | None
    start: int
    time: float
    tag: Tag | None = None
    content: Content | None = None
    outcome: Outcome = Outcome.OPEN
    end: float = float("inf")

    def names(self, digest: Digest) -> bool:
        """Whether it puts a manifest that needs the blob."""
        blobs = self.content.blobs if self.kind is Kind.PUT and self.content is not None else ()
        return any(item.digest == digest for item in blobs)


@dataclass(slots=True)
class Ledger:
    """All deeds. ``moment``: counts; ``clock``: seconds."""

    moment: Callable[[], int]
    clock: Callable[[], float]
    deeds: list[Deed] = field(default_factory=list)

    @asynccontextmanager
    async def deed(
        self,
        kind: Kind,
        place: RepositoryName,
        digest: Digest | None = None,
        *,
        tag: str | None = None,
        content: Content | None = None,
    ) -> AsyncIterator[Deed]:
        """Notes what its block asks for and how that ends."""
        noted = Deed(kind, place, digest, self.moment(), self.clock(), Tag(tag) if tag else None, content)
        self.deeds.append(noted)
        try:
            yield noted
            noted.outcome = Outcome.DONE
        except Unavailable:
            raise  # may have done any part
        except OciError:
            noted.outcome = Outcome.REFUSED
            raise
        finally:
            if noted.outcome is not Outcome.OPEN:
                noted.end = self.moment()

    async def check(self, registry: Registry) -> None:
        """Asks ``registry``, while nobody does anything, for all that was promised.

        Raises:
            AssertionError: a promise is broken.
            OciError: what must be there is refused.
        """
        for deed in list(self.deeds):
            if deed.outcome is not Outcome.DONE:
                continue
            match deed.kind:
                case Kind.PUT:
                    await self._check_put(registry, deed)
                case Kind.ADD_BLOB | Kind.ASK_BLOB:
                    await self._check_blob(registry, deed)
                case Kind.DELETE_BLOB:
                    await self._check_deleted_blob(registry, deed)
                case Kind.DELETE_MANIFEST:
                    await self._check_deleted_manifest(registry, deed)
                case Kind.DELETE_TAG:
                    await self._check_deleted_tag(registry, deed)
        await self._check_tags(registry)

    async def _check_put(self, registry: Registry, put: Deed) -> None:
        """M3, M5: the manifest, its blobs, its children, its tag, its place among the referrers."""
        assert put.content is not None
        if self._touched(put, Kind.DELETE_MANIFEST, put.content.digest):
            return
        await self._check_whole(registry, put, put.content)
        subject = put.content.manifest.document.subject
        if subject is not None:
            listed = [entry.digest async for entry in registry.list_referrers(put.place, subject.digest)]
            assert listed.count(put.content.digest) == 1, "a referrer is missing, or listed twice"
        if put.tag is not None and not any(self._moves(other, put) for other in self._since(put)):
            assert (await registry.resolve_manifest(put.place, put.tag)).digest == put.content.digest, "a tag was lost"

    async def _check_whole(self, registry: Registry, put: Deed, content: Content) -> None:
        assert (await registry.read_manifest(put.place, content.digest)).content == content.manifest.content
        for item in content.blobs:
            assert await read_bytes(registry, put.place, item.digest) == item.content
        for child in content.children:
            if not self._touched(put, Kind.DELETE_MANIFEST, child.digest):
                await self._check_whole(registry, put, child)

    async def _check_blob(self, registry: Registry, told: Deed) -> None:
        """M1, M6: who was told of a blob finds it for a day."""
        assert told.digest is not None
        if not self._touched(told, Kind.DELETE_BLOB, told.digest) and self.clock() - told.time < GRACE:
            await registry.resolve_blob(told.place, told.digest)

    async def _check_deleted_blob(self, registry: Registry, delete: Deed) -> None:
        """M9: what was deleted stays deleted, unless it was pushed again; no question, no manifest brings it back."""
        assert delete.digest is not None
        for other in self._since(delete):
            if other.kind is Kind.ADD_BLOB and other.digest == delete.digest:
                return
            if other.outcome is Outcome.OPEN and other.names(delete.digest):
                return
        try:
            await registry.resolve_blob(delete.place, delete.digest)
        except BlobUnknown:
            return
        raise AssertionError("a deleted blob came back")

    async def _check_deleted_manifest(self, registry: Registry, delete: Deed) -> None:
        assert delete.digest is not None
        if any(other.digest == delete.digest for other in self._since(delete, Kind.PUT)):
            return
        try:
            await registry.resolve_manifest(delete.place, delete.digest)
        except ManifestUnknown:
            subject = delete.content.manifest.document.subject if delete.content else None
            if subject is not None:
                listed = [entry.digest async for entry in registry.list_referrers(delete.place, subject.digest)]
                assert delete.digest not in listed, "a deleted manifest is listed as a referrer"
            return
        raise AssertionError("a deleted manifest came back")

    async def _check_deleted_tag(self, registry: Registry, delete: Deed) -> None:
        assert delete.tag is not None
        if any(other.tag == delete.tag for other in self._since(delete, Kind.PUT)):
            return
        try:
            await registry.resolve_manifest(delete.place, delete.tag)
        except ManifestUnknown:
            return
        raise AssertionError("a deleted tag came back")

    async def _check_tags(self, registry: Registry) -> None:
        """No tag dangles but one that a broken-off request left."""
        for place in {deed.place for deed in self.deeds}:
            open_deeds = [deed for deed in self.deeds if deed.place == place and deed.outcome is Outcome.OPEN]
            if any(deed.kind in (Kind.PUT, Kind.DELETE_MANIFEST) for deed in open_deeds):
                continue
            async for tag in _tags(registry, place):
                assert (await registry.read_manifest(place, tag)).content, "a tag dangles"

    def _since(self, deed: Deed, kind: Kind | None = None) -> Iterator[Deed]:
        """Deeds at the same place that were not over when ``deed`` began, and were not refused."""
        for other in self.deeds:
            is_later = other.place == deed.place and other.end > deed.start and other is not deed
            if is_later and other.outcome is not Outcome.REFUSED and kind in (None, other.kind):
                yield other

    def _touched(self, deed: Deed, kind: Kind, digest: Digest) -> bool:
        return any(other.digest == digest for other in self._since(deed, kind))

    def _moves(self, other: Deed, put: Deed) -> bool:
        """Whether ``other`` may have moved or removed the tag that ``put`` set."""
        deletes = other.kind is Kind.DELETE_MANIFEST and other.digest == put.digest
        return deletes or (other.tag is not None and other.tag == put.tag)


async def _tags(registry: Registry, place: RepositoryName) -> AsyncIterator[Tag]:
    try:
        async for tag in registry.list_tags(place):
            yield tag
    except OciError:
        return  # nothing was ever put there


async def leaks(store: ObjectStore) -> list[str]:
    """Keys that nothing explains, once everything temporary has grown old and was collected.

    A published manifest explains its record, its links, its referrer and its tags' markers; a blob that one needs
    explains one generation of itself.
    """
    keys = [entry.key async for entry in store.list("") if isinstance(entry, ObjectInfo)]
    explained: set[str] = set()
    needed: set[Digest] = set()
    records: set[str] = set()
    for key in keys:
        if key.startswith("manifests/"):
            header, _, manifest = (await read_all(store, key))[0].partition(b"\n")
            if manifest:
                explained.add(key)
                records.add(key.rpartition("/")[2])
                needed.update(map(Digest.parse, json.loads(header).get("blobs", ())))
    for digest in needed:
        markers = [key for key in keys if key.startswith(layout.blob_markers(digest))]
        parsed = layout.parse_marker(markers[-1]) if markers else None
        if parsed is not None:
            explained |= {markers[-1], layout.data(parsed[0])}
    for key in keys:
        kind, _, rest = key.partition("/")
        if kind in ("format", "tags", "history") or (
            kind in ("links", "tagged", "referrers") and _bears(rest, records)
        ):
            explained.add(key)
    return [key for key in keys if key not in explained]


def _bears(key: str, generations: set[str]) -> bool:
    last = key.rpartition("/")[2]
    held = layout.parse_manifest_link(f"/{last}")
    return (held[1] if held is not None else last.rpartition(".")[2]) in generations
