"""Thousands of schedules of writers against toy collectors, over the real ``LocalRegistry``.

Law: safety hangs on no clock. Whatever the schedule, whoever is suspended, killed or cancelled, every promise that was
made is kept (``tests/promises.py``), and in the end all garbage is collected and every push succeeds.
A seed that fails replays alone: ``_play(seed)``.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from moorage.registry.oci import (
    ANY_VALUE,
    BlobUnknown,
    BlobUploadUnknown,
    ManifestBlobUnknown,
    ManifestUnknown,
    OciError,
    PreconditionFailed,
    RepositoryName,
    Tag,
    TagCondition,
    Unavailable,
)
from moorage.registry.store import LocalRegistry, layout
from moorage.storage_backends.memory import MemoryStore

from tests.collector import GRACE, KEEP, NOTHING, Collector, Omissions
from tests.content import Blob, Content, artifact, chunked, image, index, push, push_blobs, read_bytes, repository
from tests.interleaving import Actor, Killed, Scheduler, SteppedStore, complete
from tests.promises import Kind, Ledger, leaks

_HERE, _THERE = repository("a"), repository("b")
_KEPT = image("kept", layers=1, size=40)
"""Tagged from beginning to end; nobody deletes it."""

_OLD = image("old", layers=1, size=40)
"""Its blobs were pushed long ago, once or twice, and nothing needs them."""

_NEW = image("new", layers=1, size=40)
_SIGNATURE = artifact("signature", subject=_KEPT.descriptor, layers=0)
_INDEX = index([_KEPT, _OLD])
_SEEDS = 2400
_CHUNKS = 8


@dataclass(frozen=True, slots=True)
class _World:
    """What an actor has: a registry, the notes of all deeds, and its own dice."""

    registry: LocalRegistry
    ledger: Ledger
    scheduler: Scheduler
    dice: random.Random

    def may_be_refused(self, since: float) -> bool:
        """Whether a client that was told of blobs at ``since`` may be refused them: it met a doom, or it was late."""
        actor = self.scheduler.current
        is_late = self.scheduler.now - since >= GRACE
        return is_late or (actor is not None and bool(actor.dooms_seen)) or self._deletes_blobs()

    def _deletes_blobs(self) -> bool:
        return any(deed.kind is Kind.DELETE_BLOB for deed in self.ledger.deeds)


Act = Callable[[_World], Coroutine[Any, Any, None]]


async def push_new(world: _World) -> None:
    """Uploads everything, asks for nothing."""
    await _push(world, _HERE, _NEW, "new", ask=False)


async def push_old(world: _World) -> None:
    """Asks for blobs that nothing needs, uploads what is unknown."""
    await _push(world, _HERE, _OLD, world.dice.choice(["new", "old", ""]), ask=True)


async def push_slowly(world: _World) -> None:
    """Asks for blobs that nothing needs, and puts their manifest when the answers may have expired."""
    if all([await _is_there(world, _HERE, item) for item in _OLD.blobs]):
        world.scheduler.now += world.dice.uniform(0, 2 * KEEP)
        with suppress(ManifestBlobUnknown):
            await _put(world, _HERE, _OLD, "slow")


async def push_index(world: _World) -> None:
    """Pushes an index of a manifest that stays and one that others push and delete."""
    for _ in range(3):
        try:
            await world.registry.resolve_manifest(_HERE, _OLD.digest)
        except ManifestUnknown:
            await _push(world, _HERE, _OLD, "", ask=True)
        with suppress(ManifestBlobUnknown):  # the child was deleted meanwhile
            await _put(world, _HERE, _INDEX, "index")
            break


async def sign(world: _World) -> None:
    """Pushes a referrer of a manifest that stays."""
    await _push(world, _HERE, _SIGNATURE, "", ask=True)


async def mount(world: _World) -> None:
    """Mounts blobs that another repository needs all the time, then puts their manifest."""
    began = world.scheduler.now
    for item in _KEPT.blobs:
        async with world.ledger.deed(Kind.ADD_BLOB, _THERE, item.digest):
            await world.registry.mount_blob(_THERE, item.digest, source=world.dice.choice([_HERE, None]))
    try:
        await _put(world, _THERE, _KEPT, "mounted")
    except ManifestBlobUnknown:
        assert world.may_be_refused(began), "what was mounted is gone"


async def push_again(world: _World) -> None:
    """Uploads blobs that are there already: a second generation of each."""
    for item in _KEPT.blobs:
        await _upload(world, _HERE, item)


async def move_tag(world: _World) -> None:
    """Puts a manifest that stays once more, and moves a tag to it."""
    await _put_kept(world, world.dice.choice(["new", "old"]))


async def claim_tag(world: _World) -> None:
    """Puts a manifest that stays, unless the tag exists."""
    with suppress(PreconditionFailed):
        await _put_kept(world, "new", TagCondition(absent=True))


async def ask(world: _World) -> None:
    """Asks for everything as a pusher would, and pushes nothing."""
    for item in (*_OLD.blobs, *_KEPT.blobs):
        await _is_there(world, _HERE, item)


async def read(world: _World) -> None:
    """Reads what is needed all the time."""
    for _ in range(3):
        assert (await world.registry.read_manifest(_HERE, Tag("kept"))).content == _KEPT.manifest.content
        for item in _KEPT.blobs:
            assert await read_bytes(world.registry, _HERE, item.digest) == item.content


async def delete_manifest(world: _World) -> None:
    """Deletes manifests that others may be putting."""
    for content in world.dice.sample([_NEW, _OLD, _INDEX, _SIGNATURE], 2):
        with suppress(ManifestUnknown):
            async with world.ledger.deed(Kind.DELETE_MANIFEST, _HERE, content.digest, content=content):
                await world.registry.delete_manifest(_HERE, content.digest)


async def delete_tag(world: _World) -> None:
    """Deletes tags that others may be moving."""
    for tag in ("new", "old", "index"):
        with suppress(ManifestUnknown):
            async with world.ledger.deed(Kind.DELETE_TAG, _HERE, tag=tag):
                await world.registry.delete_tag(_HERE, Tag(tag))


async def delete_blob(world: _World) -> None:
    """Deletes blobs that others may be asking for and referencing."""
    for item in world.dice.sample([*_OLD.blobs, *_KEPT.blobs], 2):
        with suppress(OciError):
            async with world.ledger.deed(Kind.DELETE_BLOB, _HERE, item.digest):
                await world.registry.delete_blob(_HERE, item.digest)


async def expire(world: _World) -> None:
    """Drops abandoned sessions."""
    await world.registry.expire_uploads(GRACE)


_ACTS: Sequence[Act] = (
    push_new, push_old, push_slowly, push_index, sign, mount, push_again, move_tag, claim_tag, ask, read,
    delete_manifest, delete_tag, delete_blob, expire,
)  # fmt: skip


async def _push(world: _World, place: RepositoryName, content: Content, tag: str, *, ask: bool) -> None:
    """What a client does: after MANIFEST_BLOB_UNKNOWN it starts again."""
    for _ in range(3):
        began = world.scheduler.now
        for item in content.blobs:
            if not (ask and await _is_there(world, place, item)):
                await _upload(world, place, item)
        try:
            await _put(world, place, content, tag)
        except ManifestBlobUnknown:
            assert world.may_be_refused(began), "a client was refused a blob that it had been promised"
        else:
            break


async def _is_there(world: _World, place: RepositoryName, item: Blob) -> bool:
    with suppress(BlobUnknown):
        async with world.ledger.deed(Kind.ASK_BLOB, place, item.digest):
            await world.registry.resolve_blob(place, item.digest, for_push=True)
        return True
    return False


async def _upload(world: _World, place: RepositoryName, item: Blob) -> None:
    for _ in range(3):
        with suppress(BlobUploadUnknown):  # the session expired while we were suspended
            async with world.ledger.deed(Kind.ADD_BLOB, place, item.digest):
                session = await world.registry.start_upload(place)
                await world.registry.append_upload(place, session.id, chunked(item.content), start=0)
                await world.registry.finish_upload(place, session.id, item.digest)
            return


async def _put(
    world: _World, place: RepositoryName, content: Content, tag: str, condition: TagCondition = ANY_VALUE
) -> None:
    async with world.ledger.deed(Kind.PUT, place, content.digest, tag=tag or None, content=content):
        tags = [Tag(tag)] if tag else []
        await world.registry.push_manifest(place, content.manifest, tags=tags, condition=condition)


async def _put_kept(world: _World, tag: str, condition: TagCondition = ANY_VALUE) -> None:
    began = world.scheduler.now
    try:
        await _put(world, _HERE, _KEPT, tag, condition)
    except ManifestBlobUnknown:  # just now all its copies are condemned, and wait to be copied
        assert world.may_be_refused(began), "what is needed all the time was refused"


async def _attempt(act: Act, world: _World) -> None:
    with suppress(Unavailable):  # "try again": the ledger notes it as open
        await act(world)


def _play(seed: int, *, acts: Sequence[Act] = (), omissions: Omissions = NOTHING, **broken: Any) -> None:
    """One schedule: some actors against one or two collectors, then a look at what is left.

    Args:
        broken: how the writers' store is broken; see ``SteppedStore``.

    Raises:
        AssertionError: a promise was broken.
        OciError: an actor was refused what it must get.
    """
    dice = random.Random(seed)
    scheduler = Scheduler(seed, leap=2 * KEEP)
    store = MemoryStore(clock=scheduler.clock)
    ledger = Ledger(itertools.count().__next__, scheduler.clock)
    complete(_build(store, scheduler, ledger, dice.randint(1, 2)))
    replicas = [
        complete(LocalRegistry.open(SteppedStore(store, scheduler, **broken), clock=scheduler.clock)) for _ in range(2)
    ]
    chosen = list(acts) or dice.choices(_ACTS, k=dice.randint(2, 5))
    worlds = [_World(dice.choice(replicas), ledger, scheduler, random.Random(dice.random())) for _ in chosen]
    actors = [Actor(_attempt(act, world), *_fate(dice)) for act, world in zip(chosen, worlds, strict=True)]
    for _ in range(dice.randint(1, 2)):
        collector = Collector(SteppedStore(store, scheduler), scheduler.clock, omissions)
        actors.append(Actor(collector.run(), *_fate(dice)))
    scheduler.run(actors)
    complete(_judge(store, scheduler, ledger))


def _fate(dice: random.Random) -> tuple[type[BaseException] | None, int]:
    """One in five is killed or cancelled on its way."""
    return dice.choice([Killed, asyncio.CancelledError]) if dice.random() < 0.2 else None, dice.randint(1, 60)


async def _build(store: MemoryStore, scheduler: Scheduler, ledger: Ledger, copies: int) -> None:
    """A registry with a past: what stays, what was deleted, what was never finished; all of it old."""
    registry = await LocalRegistry.open(store, clock=scheduler.clock)
    world = _World(registry, ledger, scheduler, random.Random(0))
    await _push(world, _HERE, _KEPT, "kept", ask=False)
    for _ in range(copies):
        await push_blobs(registry, _HERE, _OLD.blobs)
    await push(registry, _HERE, _NEW, "new")
    await registry.delete_manifest(_HERE, _NEW.digest)
    await registry.start_upload(_HERE)
    scheduler.now += 10 * KEEP


async def _judge(store: MemoryStore, scheduler: Scheduler, ledger: Ledger) -> None:
    """Every promise is kept now and when the garbage is gone; all of it goes; and every push then succeeds."""
    registry = await LocalRegistry.open(store, clock=scheduler.clock)  # a replica that knows nothing
    await ledger.check(registry)
    await Collector(store, scheduler.clock).run()
    await ledger.check(registry)
    for _ in range(4):
        scheduler.now += 2 * KEEP
        await registry.expire_uploads(GRACE)
        await Collector(store, scheduler.clock).run()
    await ledger.check(registry)
    assert not (leaked := await leaks(store)), leaked
    for content in (_KEPT, _OLD, _NEW, _SIGNATURE, _INDEX):
        world = _World(registry, ledger, scheduler, random.Random(0))
        await _push(world, _HERE, content, "last", ask=True)
        assert (await registry.read_manifest(_HERE, Tag("last"))).digest == content.digest
    await ledger.check(registry)


@pytest.fixture(autouse=True)
def _counted_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generations by number instead of by time and chance, so that a seed replays exactly."""
    numbers = itertools.count(1)
    monkeypatch.setattr(layout, "new_generation", lambda: f"{next(numbers):032x}")


@pytest.mark.parametrize("chunk", range(_CHUNKS))
def test_no_schedule_breaks_a_promise(chunk: int) -> None:
    """Writers, readers, deleters, killed and cancelled ones, and complete collectors, on two replicas."""
    for seed in range(chunk, _SEEDS, _CHUNKS):
        try:
            _play(seed)
        except (AssertionError, OciError) as exc:
            raise AssertionError(f"seed {seed}: {exc!r}") from exc


def _is_caught(**faults: Any) -> bool:
    """Whether some schedule shows that a part is missing."""
    for seed in range(3000):
        try:
            _play(seed, **faults)
        except (AssertionError, OciError):
            return True
    return False


@pytest.mark.parametrize(
    ("omissions", "acts"),
    [
        pytest.param(Omissions(second_mark=True), [push_old], id="it marks once"),
        pytest.param(Omissions(doom_until_the_end=True), [push_old], id="it removes the doom first"),
        pytest.param(Omissions(reservations=True), [push_slowly], id="it overlooks manifests being put"),
        pytest.param(
            Omissions(giving_up=True), [push_old, push_slowly], id="it overlooks old ones without giving them up"
        ),
    ],
)
def test_a_broken_collector_is_caught(omissions: Omissions, acts: Sequence[Act]) -> None:
    """The test above can fail: each omission loses something in some schedule."""
    assert _is_caught(omissions=omissions, acts=acts)


@pytest.mark.parametrize(
    ("acts", "broken"),
    [
        pytest.param([push_old], {"blind": True}, id="it sees no dooms"),
        pytest.param([push_old], {"skipped": "/m-"}, id="it writes no links for its manifests"),
    ],
)
def test_a_broken_writer_is_caught(acts: Sequence[Act], broken: dict[str, Any]) -> None:
    """So does each part that a writer leaves out."""
    assert _is_caught(acts=acts, **broken)
