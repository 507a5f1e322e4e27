"""A life of a registry: images pushed, tagged, moved, mounted, deleted, and the judgement after its death.

Law of the judgement (crash oracle): what was acknowledged is readable and hashes right; what was not is absent or
complete; what a manifest needs is there; lists agree with what is found; whatever was interrupted can be pushed again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterable
from typing import Any, Final, TypeVar

from moorage.registry.oci import (
    BlobUnknown,
    BlobUploadUnknown,
    ManifestUnknown,
    OciError,
    Registry,
    RepositoryName,
    Tag,
)
from moorage.registry.store import LocalRegistry
from moorage.storage_backends.base import ObjectStore

from tests.content import Blob, Content, blob, chunked, image, push, read_bytes
from tests.crash.workers import Line, Say

__all__ = ["RegistryLedger", "live"]

K = TypeVar("K")
V = TypeVar("V")

_SIZES: Final = (700, 30_000, 1_500_000)
_TAGS: Final = ("latest", "v1", "Edge")


def picture(seed: str) -> Content:
    """The image of a seed; ``a@b`` is one that refers to the image ``b``."""
    _, _, subject = seed.partition("@")
    size = random.Random(seed).choice([10, 3_000, 100_000])
    return image(seed, layers=1, size=size, subject=picture(subject).descriptor if subject else None)


def piece(seed: str) -> Blob:
    """The blob of a seed."""
    return blob(seed, random.Random(seed).choice(_SIZES))


async def live(store: ObjectStore, say: Say, *, seed: str, tasks: int) -> None:
    """Works with a registry over the store until it fails or somebody ends the process.

    Each task has repositories of its own, so what it said last is what is true of them.
    """
    registry = await LocalRegistry.open(store)
    async with asyncio.TaskGroup() as group:
        for number in range(tasks):
            group.create_task(_Task(registry, say, f"{seed}-{number}").run())


class _Task:
    """One writer. ``say`` hears each change as: what may become true, then that it did."""

    def __init__(self, registry: Registry, say: Say, name: str) -> None:
        self._registry, self._say = registry, say
        self._home, self._guest = f"life/{name}", f"life/{name}/guest"
        self._random = random.Random(name)
        self._turn = 0
        self._name = name
        self._images: list[str] = []
        self._blobs: list[str] = []

    async def run(self) -> None:
        """One operation after another, until one fails."""
        often = [self._push_image, self._session]
        rare = [self._push_blob, self._retag, self._untag, self._delete_image, self._delete_blob, self._mount]
        operations = [*often, *often, *rare]
        while True:
            self._turn += 1
            seed = f"{self._name}-{self._turn}"
            await self._random.choice(operations)(seed)

    async def _told(self, work: Awaitable[object], **change: Any) -> None:
        self._say({"what": "begin", "repository": self._home, **change})
        await work
        self._say({"what": "done", "repository": self._home, **change})

    async def _push_image(self, seed: str) -> None:
        tags = self._random.sample(_TAGS, self._random.randrange(3))
        if self._images and self._random.random() < 0.3:
            seed = f"{seed}@{self._random.choice(self._images).partition('@')[0]}"
        work = push(self._registry, RepositoryName.parse(self._home), picture(seed), *tags)
        await self._told(work, images=[seed], tags=[[tag, seed] for tag in tags])
        self._images.append(seed)

    async def _push_blob(self, seed: str) -> None:
        part = piece(seed)
        work = self._registry.push_blob(
            RepositoryName.parse(self._home), part.descriptor, chunked(part.content, 65_536)
        )
        await self._told(work, blobs=[seed])
        self._blobs.append(seed)

    async def _session(self, seed: str) -> None:
        """A chunked upload, told step by step; one in four is left lying."""
        part, name = piece(seed), RepositoryName.parse(self._home)
        session = (await self._registry.start_upload(name)).id
        self._tell(session, seed, 0)
        for at in range(0, part.descriptor.size, 400_000):
            end = min(at + 400_000, part.descriptor.size)
            self._tell(session, seed, end, acknowledged=False)
            await self._registry.append_upload(name, session, chunked(part.content[at:end], 65_536), start=at)
            self._tell(session, seed, end)
        if self._random.randrange(4):
            self._tell(session, seed, -1, acknowledged=False)
            await self._told(self._registry.finish_upload(name, session, part.digest), blobs=[seed])
            self._tell(session, seed, -1)
            self._blobs.append(seed)

    def _tell(self, session: str, seed: str, offset: int, *, acknowledged: bool = True) -> None:
        line = {"session": session, "seed": seed, "offset": offset, "acknowledged": acknowledged}
        self._say({"what": "session", "repository": self._home, **line})

    async def _retag(self, seed: str) -> None:
        if self._images:
            chosen, tag = self._random.choice(self._images), self._random.choice(_TAGS)
            manifest = picture(chosen).manifest
            name = RepositoryName.parse(self._home)
            work = self._registry.push_manifest(name, manifest, tags=[Tag.parse(tag)])
            await self._told(work, images=[chosen], tags=[[tag, chosen]])

    async def _untag(self, seed: str) -> None:
        tag = self._random.choice(_TAGS)
        name = RepositoryName.parse(self._home)
        work = _unless(ManifestUnknown, self._registry.delete_tag(name, Tag.parse(tag)))
        await self._told(work, tags=[[tag, None]])

    async def _delete_image(self, seed: str) -> None:
        if self._images:
            gone = self._images.pop(self._random.randrange(len(self._images)))
            work = self._registry.delete_manifest(RepositoryName.parse(self._home), picture(gone).digest)
            await self._told(work, deleted=[gone])

    async def _delete_blob(self, seed: str) -> None:
        if self._blobs:
            gone = self._blobs.pop(self._random.randrange(len(self._blobs)))
            work = self._registry.delete_blob(RepositoryName.parse(self._home), piece(gone).digest)
            await self._told(work, deleted_blobs=[gone])

    async def _mount(self, seed: str) -> None:
        if self._blobs:
            chosen = self._random.choice(self._blobs)
            home, guest = RepositoryName.parse(self._home), RepositoryName.parse(self._guest)
            work = self._registry.mount_blob(guest, piece(chosen).digest, source=home)
            await self._told(work, repository=self._guest, blobs=[chosen])


async def _unless(kind: type[OciError], work: Awaitable[object]) -> None:
    try:
        await work
    except kind:
        return


class RegistryLedger:
    """What may be true of a registry, from what its workers said.

    Args:
        power: whether deaths are power cuts; then an upload may also be unknown, or stand where it stood before.
    """

    def __init__(self, *, power: bool) -> None:
        self._power = power
        self._blobs: dict[tuple[str, str], set[bool]] = {}
        self._images: dict[tuple[str, str], set[bool]] = {}
        self._tags: dict[tuple[str, str], set[str | None]] = {}
        self._sessions: dict[tuple[str, str, str], set[int | None]] = {}
        # Where a push was interrupted its traces stay until they are collected; they may show in the catalog.
        self._interrupted: set[str] = set()

    def hear(self, lines: Iterable[Line]) -> list[str]:
        """Takes down what a worker said; complaints if it died of itself."""
        complaints = []
        for line in lines:
            match line["what"]:
                case "begin":
                    self._hear_change(line, done=False)
                case "done":
                    self._hear_change(line, done=True)
                case "session":
                    self._hear_session(line)
                case "stopped" if self._power:
                    pass  # nothing works when the power is gone
                case _:
                    complaints.append(line["trace"])
        return complaints

    def _hear_change(self, line: Line, *, done: bool) -> None:
        home = line["repository"]
        for facts, what, is_there in (
            (self._images, "images", True),
            (self._images, "deleted", False),
            (self._blobs, "blobs", True),
            (self._blobs, "deleted_blobs", False),
        ):
            for seed in line.get(what, ()):
                _learn(facts, (home, seed), is_there, sure=done, before=False)
        for tag, seed in line.get("tags", ()):
            _learn(self._tags, (home, tag), seed, sure=done, before=None)
        for gone in line.get("deleted", ()):
            for (name, tag), values in self._tags.items():
                if name == home and gone in values:
                    self._tags[name, tag] = values - {gone} | {None} if done else values | {None}

    def _hear_session(self, line: Line) -> None:
        place = None if line["offset"] < 0 else line["offset"]
        key = (line["repository"], line["session"], line["seed"])
        sure = line["acknowledged"] and not self._power
        _learn(self._sessions, key, place, sure=sure, before=None if self._power else 0)

    async def judge(self, store: ObjectStore) -> list[str]:
        """Complaints about the registry as it is now; what was found becomes what must be, for the next life."""
        registry = await LocalRegistry.open(store)
        doubtful = [key for key, values in self._images.items() if len(values) > 1]
        self._interrupted |= {home for home, _ in doubtful}
        complaints = [
            *[c for key in self._blobs for c in await self._judge_blob(registry, *key)],
            *[c for key in self._images for c in await self._judge_image(registry, *key, sure=key not in doubtful)],
            *[c for key in self._tags for c in await self._judge_tag(registry, *key)],
            *await self._judge_lists(registry),
            *[c for key in list(self._sessions) for c in await self._judge_session(registry, *key)],
        ]
        for home, seed in doubtful:
            await push(registry, RepositoryName.parse(home), picture(seed))
            self._images[home, seed] = {True}
            complaints += await self._judge_image(registry, home, seed, sure=True)
        return complaints

    async def _judge_blob(self, registry: Registry, home: str, seed: str) -> list[str]:
        found = await _holds(registry, home, piece(seed))
        return _settle(self._blobs, (home, seed), found, f"blob {seed} of {home}")

    async def _judge_image(self, registry: Registry, home: str, seed: str, *, sure: bool) -> list[str]:
        """An image is there with all that it needs; one that was acknowledged is listed under its subject too."""
        content, name = picture(seed), RepositoryName.parse(home)
        try:
            found = (await registry.read_manifest(name, content.digest)) == content.manifest
        except ManifestUnknown:
            return _settle(self._images, (home, seed), False, f"image {seed} of {home}")
        complaints = _settle(self._images, (home, seed), found, f"image {seed} of {home}")
        lacking = [part.digest for part in content.blobs if not await _holds(registry, home, part)]
        if lacking:
            complaints.append(f"image {seed} of {home} lacks {lacking}")
        subject = content.manifest.document.subject
        if subject is not None and sure:
            listed = [d.digest async for d in registry.list_referrers(name, subject.digest)]
            if content.digest not in listed:
                complaints.append(f"image {seed} of {home} is no referrer of its subject")
        return complaints

    async def _judge_tag(self, registry: Registry, home: str, tag: str) -> list[str]:
        names = {picture(seed).digest: seed for name, seed in self._images if name == home}
        try:
            digest = (await registry.resolve_manifest(RepositoryName.parse(home), Tag.parse(tag))).digest
        except ManifestUnknown:
            return _settle(self._tags, (home, tag), None, f"tag {tag} of {home}")
        complaints = _settle(self._tags, (home, tag), names.get(digest, str(digest)), f"tag {tag} of {home}")
        if self._images.get((home, names.get(digest, ""))) != {True}:
            complaints.append(f"tag {tag} of {home} names {digest}, which is not there")
        return complaints

    async def _judge_lists(self, registry: Registry) -> list[str]:
        homes = sorted({home for (home, _), found in self._images.items() if found == {True}})
        listed = [str(name) async for name in registry.list_repositories()]
        complaints = [] if set(homes) <= set(listed) else [f"listed repositories {listed}, found {homes}"]
        if strangers := set(listed) - set(homes) - self._interrupted:
            complaints.append(f"listed repositories without a manifest: {strangers}")
        for home in homes:
            tags = [str(tag) async for tag in registry.list_tags(RepositoryName.parse(home))]
            found = sorted(tag for (name, tag), values in self._tags.items() if name == home and values != {None})
            if tags != found:
                complaints.append(f"listed tags of {home} {tags}, found {found}")
        return complaints

    async def _judge_session(self, registry: Registry, home: str, session: str, seed: str) -> list[str]:
        """A session stands at a place where it was told to, and can be finished from there."""
        places = self._sessions.pop((home, session, seed))
        name, part = RepositoryName.parse(home), piece(seed)
        try:
            offset = (await registry.upload_status(name, session)).offset
        except BlobUploadUnknown:
            return [] if None in places else [f"session {session} is unknown, allowed: {places}"]
        if offset not in places:
            return [f"session {session} stands at {offset}, allowed: {places}"]
        await registry.append_upload(name, session, chunked(part.content[offset:], 65_536), start=offset)
        await registry.finish_upload(name, session, part.digest)
        self._blobs[home, seed] = {True}
        return await self._judge_blob(registry, home, seed)


def _learn(facts: dict[K, set[V]], key: K, value: V, *, sure: bool, before: V) -> None:
    """Notes what is true (``sure``), or may become true of what was ``before``."""
    if sure:
        facts[key] = {value}
    else:
        facts.setdefault(key, {before}).add(value)


def _settle(facts: dict[K, set[V]], key: K, found: V, name: str) -> list[str]:
    """What was found is true from now on; a complaint if it may not be."""
    allowed = facts[key]
    facts[key] = {found}
    return [] if found in allowed else [f"{name}: found {found!r}, allowed {allowed!r}"]


async def _holds(registry: Registry, home: str, part: Blob) -> bool:
    """Whether the repository has the blob; bytes that are not its own are neither."""
    try:
        return await read_bytes(registry, RepositoryName.parse(home), part.digest) == part.content
    except BlobUnknown:
        return False
