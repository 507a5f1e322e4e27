"""Thousands of schedules of writers against a toy collector, over the real ``LocalRegistry``.

Law: safety hangs on no clock. Whatever the schedule, an answered manifest and its blobs are readable until somebody
deletes that manifest (promise M5), no tag dangles, and what is needed all the time is found all the time. In schedules
without suspended collectors, a client that was told of a blob is never refused it unless it met a doom (promise M6).
A seed that fails replays alone: ``_play(seed, cast)``.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from moorage.registry.oci import (
    BlobReferenced,
    BlobUnknown,
    Digest,
    ManifestBlobUnknown,
    ManifestUnknown,
    OciError,
    RepositoryName,
    Tag,
)
from moorage.registry.store import LocalRegistry, layout
from moorage.storage_backends.memory import MemoryStore

from tests.collector import Collector, Omissions
from tests.content import Content, artifact, image, push, push_blobs, read_bytes, repository
from tests.interleaving import DoomBlind, Scheduler, SteppedStore, saw_doom

_HERE, _THERE = repository("a"), repository("b")
# KEPT is needed by a tagged manifest from beginning to end; DOOMABLE is stored, and nothing needs its blobs.
_KEPT, _DOOMABLE = image("kept", layers=1, size=40), image("doomable", layers=1, size=40)
_FRESH = image("fresh", layers=1, size=40)
_SIGNATURE = artifact("signature", subject=_KEPT.descriptor, layers=0)
_DAYS = 24 * 3600.0
_SEEDS = 400


@dataclass(slots=True)
class _Deed:
    """A put or a delete of a manifest, from its first to its last storage call. ``end``: None while it runs."""

    place: tuple[RepositoryName, Digest]
    start: int
    end: int | None = None
    content: Content | None = None


@dataclass(slots=True)
class _World:
    """What happened, and to what store."""

    store: MemoryStore
    clock: Callable[[], int]
    deletes_blobs: bool = False
    suspends_collectors: bool = False
    puts: list[_Deed] = field(default_factory=list)
    deletes: list[_Deed] = field(default_factory=list)

    @asynccontextmanager
    async def deed(self, log: list[_Deed], name: RepositoryName, content: Content) -> AsyncIterator[None]:
        """Notes a deed. A put that raises was not answered; a delete that raises may have done its work."""
        noted = _Deed((name, content.digest), self.clock(), content=content)
        if log is self.deletes:
            log.append(noted)
        yield
        noted.end = self.clock()
        if log is self.puts:
            log.append(noted)

    def promised(self) -> list[tuple[RepositoryName, Content]]:
        """Manifests whose put was answered and that nobody may have deleted since it began."""
        return [
            (put.place[0], put.content)
            for put in self.puts
            if put.content is not None
            and not any(d.place == put.place and (d.end is None or d.end > put.start) for d in self.deletes)
        ]


Actor = Callable[[_World, LocalRegistry], Coroutine[Any, Any, None]]


async def _put(world: _World, registry: LocalRegistry, name: RepositoryName, content: Content, *tags: str) -> None:
    async with world.deed(world.puts, name, content):
        await registry.push_manifest(name, content.manifest, tags=[Tag(tag) for tag in tags])


async def push_fresh(world: _World, registry: LocalRegistry) -> None:
    """Uploads everything, then puts the manifest."""
    await _persist(world, registry, _FRESH, ask=False)


async def ask_then_put(world: _World, registry: LocalRegistry) -> None:
    """Asks for blobs that nothing references, uploads what is unknown, puts the manifest."""
    await _persist(world, registry, _DOOMABLE, ask=True)


async def sign(world: _World, registry: LocalRegistry) -> None:
    """Puts a referrer of a manifest that stays."""
    await _persist(world, registry, _SIGNATURE, ask=True)


async def _persist(world: _World, registry: LocalRegistry, content: Content, *, ask: bool) -> None:
    """What a client does: after MANIFEST_BLOB_UNKNOWN it starts again."""
    for _ in range(3):
        for item in content.blobs:
            if not (ask and await _is_known(registry, item.digest)):
                await push_blobs(registry, _HERE, [item])
        try:
            await _put(world, registry, _HERE, content, "new")
        except ManifestBlobUnknown:
            if not (saw_doom() or world.deletes_blobs or world.suspends_collectors):
                raise AssertionError("a client was refused a blob that it had been promised") from None
        else:
            return


async def _is_known(registry: LocalRegistry, digest: Digest) -> bool:
    try:
        await registry.resolve_blob(_HERE, digest, for_push=True)
    except BlobUnknown:
        return False
    return True


async def mount_then_put(world: _World, registry: LocalRegistry) -> None:
    """Mounts blobs that another repository needs all the time, puts their manifest."""
    try:
        for item in _KEPT.blobs:
            await registry.mount_blob(_THERE, item.digest, source=_HERE)
        await _put(world, registry, _THERE, _KEPT, "mounted")
    except ManifestBlobUnknown:
        if not world.suspends_collectors:
            raise


async def push_again(world: _World, registry: LocalRegistry) -> None:
    """Uploads blobs that are there already: a second generation of each."""
    del world
    await push_blobs(registry, _HERE, _KEPT.blobs)


async def put_again(world: _World, registry: LocalRegistry) -> None:
    """Puts a manifest that stays once more, and moves a tag to it."""
    await _put(world, registry, _HERE, _KEPT, "moving")


async def read(world: _World, registry: LocalRegistry) -> None:
    """Reads what is needed all the time, by tag, and asks for it as a pusher would."""
    del world
    for _ in range(3):
        assert (await registry.read_manifest(_HERE, Tag("kept"))).content == _KEPT.manifest.content
        for item in _KEPT.blobs:
            assert await read_bytes(registry, _HERE, item.digest) == item.content
            await registry.resolve_blob(_HERE, item.digest, for_push=True)


async def delete_manifest(world: _World, registry: LocalRegistry) -> None:
    """Deletes manifests that others may be putting."""
    for content in (_FRESH, _DOOMABLE):
        async with world.deed(world.deletes, _HERE, content):
            with suppress(ManifestUnknown):
                await registry.delete_manifest(_HERE, content.digest)


async def delete_tag(world: _World, registry: LocalRegistry) -> None:
    """Deletes tags that others may be moving."""
    del world
    for tag in ("new", "moving"):
        with suppress(ManifestUnknown):
            await registry.delete_tag(_HERE, Tag(tag))


async def delete_blob(world: _World, registry: LocalRegistry) -> None:
    """Deletes blobs that others may be referencing."""
    for item in (*_DOOMABLE.blobs, *_KEPT.blobs):
        with suppress(BlobUnknown, BlobReferenced):
            await registry.delete_blob(_HERE, item.digest)


_ACTORS: Sequence[Actor] = (
    push_fresh, ask_then_put, ask_then_put, sign, mount_then_put, push_again, put_again, read, delete_manifest,
    delete_tag, delete_blob,
)  # fmt: skip


async def _play(
    seed: int,
    cast: Sequence[Actor] = (),
    *,
    omissions: Omissions = Omissions(),  # noqa: B008  # frozen
    writers_store: type[SteppedStore] = SteppedStore,
) -> None:
    """One schedule: a cast, drawn by lot if none is given, against one or two collectors; then a look at what is left.

    Raises:
        AssertionError: a promise was broken.
        OciError: an actor was refused what it must get.
    """
    dice = random.Random(seed)
    chosen = list(cast) or dice.sample(_ACTORS, dice.randint(2, 4))
    age = -10 * _DAYS
    world = _World(
        MemoryStore(clock=lambda: time.time() + age),
        clock=itertools.count().__next__,
        deletes_blobs=delete_blob in chosen,
        suspends_collectors=dice.random() < 0.3,
    )
    await _build(world)
    age = 0.0
    scheduler = Scheduler(seed)
    now = time.time() + (2 * _DAYS if world.suspends_collectors else 0)
    collectors = [Collector(SteppedStore(world.store, scheduler), now, omissions) for _ in range(dice.randint(1, 2))]
    replicas = [LocalRegistry(writers_store(world.store, scheduler), allow_sparse=False) for _ in range(2)]
    runs = [actor(world, replicas[number % 2]) for number, actor in enumerate(chosen)]
    try:
        await scheduler.run([*runs, *(collector.run() for collector in collectors)])
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    await _judge(world)
    await Collector(world.store, time.time() + 2 * _DAYS).run()
    await _judge(world)


async def _build(world: _World) -> None:
    registry = await LocalRegistry.open(world.store)
    await push(registry, _HERE, _KEPT, "kept", "moving")
    await push_blobs(registry, _HERE, _DOOMABLE.blobs)
    world.puts.append(_Deed((_HERE, _KEPT.digest), world.clock(), world.clock(), _KEPT))


async def _judge(world: _World) -> None:
    """Everything promised is readable by a replica that knows nothing, and no tag dangles."""
    registry = await LocalRegistry.open(world.store)
    for name, content in world.promised():
        assert (await registry.read_manifest(name, content.digest)).content == content.manifest.content
        for item in content.blobs:
            assert await read_bytes(registry, name, item.digest) == item.content
        if content is _SIGNATURE:
            assert [entry.digest async for entry in registry.list_referrers(name, _KEPT.digest)] == [content.digest]
    for name in (_HERE, _THERE):
        async for tag in _tags(registry, name):
            assert (await registry.read_manifest(name, tag)).content, "a tag dangles"


async def _tags(registry: LocalRegistry, name: RepositoryName) -> AsyncIterator[Tag]:
    try:
        async for tag in registry.list_tags(name):
            yield tag
    except OciError:
        return  # nothing was ever put there


@pytest.fixture(autouse=True)
def _counted_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generations by number instead of by time and chance, so that a seed replays exactly."""
    numbers = itertools.count(1)
    monkeypatch.setattr(layout, "new_generation", lambda: f"{next(numbers):032x}")


_CASTS = [
    pytest.param((ask_then_put,), 0, id="ask then put"),
    pytest.param((ask_then_put, push_fresh), 0, id="two pushes"),
    pytest.param((ask_then_put, delete_blob), 0, id="put against delete of its blobs"),
    pytest.param((push_fresh, push_fresh, delete_manifest), 0, id="two puts against delete of the manifest"),
    pytest.param((ask_then_put, delete_manifest, delete_tag), 0, id="put against every delete of it"),
    pytest.param((push_fresh, delete_manifest, delete_manifest), 0, id="put against two deletes"),
    pytest.param((put_again, put_again, delete_tag), 0, id="tag moved against tag deleted"),
    pytest.param((push_again, read), 0, id="read against a second copy"),
    pytest.param((push_again, put_again), 0, id="put against a second copy"),
    pytest.param((push_again, mount_then_put), 0, id="mount against a second copy"),
    pytest.param((sign, read, push_again), 0, id="signature"),
    *(pytest.param((), number * _SEEDS, id=f"cast by lot {number}") for number in range(8)),
]


@pytest.mark.parametrize(("cast", "first"), _CASTS)
async def test_no_schedule_breaks_a_promise(cast: Sequence[Actor], first: int) -> None:
    """Writers, readers and deleters on two replicas, against complete collectors."""
    for seed in range(first, first + _SEEDS):
        try:
            await _play(seed, cast)
        except (AssertionError, OciError) as exc:
            raise AssertionError(f"seed {seed}: {exc!r}") from exc


async def _holds(seed: int, cast: Sequence[Actor], **faults: Any) -> bool:
    try:
        await _play(seed, cast, **faults)
    except (AssertionError, OciError):
        return False
    return True


async def _is_caught(cast: Sequence[Actor], **faults: Any) -> bool:
    """Whether some schedule breaks a promise with the fault and keeps all of them without it."""
    for seed in range(4000):
        if not await _holds(seed, cast, **faults) and await _holds(seed, cast):
            return True
    return False


@pytest.mark.parametrize(
    ("omissions", "cast"),
    [
        pytest.param(Omissions(second_mark=True), (ask_then_put,), id="collector marks once"),
        pytest.param(Omissions(doom_until_the_end=True), (ask_then_put,), id="collector removes the doom first"),
        pytest.param(Omissions(pending=True, second_mark=True), (ask_then_put,), id="pending edges overlooked"),
        pytest.param(Omissions(newer_looked_for_again=True), (push_again, read), id="newer copy not looked for again"),
    ],
)
async def test_a_broken_collector_is_caught(omissions: Omissions, cast: Sequence[Actor]) -> None:
    """The test above can fail: each omission loses something in some schedule."""
    assert await _is_caught(cast, omissions=omissions)


async def test_a_writer_that_does_not_check_is_caught() -> None:
    """A writer that sees no doom relies on what is about to be deleted."""
    assert await _is_caught((ask_then_put,), writers_store=DoomBlind)
