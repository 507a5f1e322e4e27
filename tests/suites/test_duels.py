"""Two requests cut into each other at every pair of their storage calls, over the real ``LocalRegistry``.

Law: one makes some calls, the other some, the first goes on to its end, then the other; all ways are tried. After
each, what was answered must be true (``tests/promises.py``), whoever was first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from moorage.registry.oci import (
    BlobUnknown,
    Digest,
    ManifestBlobUnknown,
    OciError,
    PreconditionFailed,
    Tag,
    TagCondition,
)
from moorage.registry.store import LocalRegistry, layout
from moorage.storage_backends.memory import MemoryStore

from tests.collector import KEEP, Collector
from tests.content import Content, artifact, chunked, image, index, push, push_blobs, read_bytes, repository
from tests.interleaving import Actor, Scheduler, SteppedStore, complete
from tests.promises import Kind, Ledger, Outcome

_HERE, _THERE = repository("a"), repository("b")
_SUBJECT = image("subject", layers=0)
_IMAGE = artifact("one", layers=0, subject=_SUBJECT.descriptor)
_BLOB = _IMAGE.blobs[0]
_OTHER = image("other", layers=0)
_INDEX = index([_IMAGE])


@dataclass(frozen=True, slots=True)
class _World:
    registry: LocalRegistry
    store: SteppedStore
    ledger: Ledger
    scheduler: Scheduler


Act = Callable[[_World], Coroutine[Any, Any, None]]


def put(content: Content, tag: str | None = None, *, absent: bool = False, named: Digest | None = None) -> Act:
    """Puts a manifest."""

    async def act(world: _World) -> None:
        with suppress(PreconditionFailed):
            async with world.ledger.deed(Kind.PUT, _HERE, content.digest, tag=tag, content=content):
                tags = [Tag(tag)] if tag else []
                condition = TagCondition(absent=absent, digest=named)
                await world.registry.push_manifest(_HERE, content.manifest, tags=tags, condition=condition)

    return act


def delete_manifest(content: Content) -> Act:
    """Deletes a manifest."""

    async def act(world: _World) -> None:
        async with world.ledger.deed(Kind.DELETE_MANIFEST, _HERE, content.digest, content=content):
            await world.registry.delete_manifest(_HERE, content.digest)

    return act


async def delete_tag(world: _World) -> None:
    """Deletes the tag."""
    async with world.ledger.deed(Kind.DELETE_TAG, _HERE, tag="tag"):
        await world.registry.delete_tag(_HERE, Tag("tag"))


async def delete_blob(world: _World) -> None:
    """Deletes the blob."""
    async with world.ledger.deed(Kind.DELETE_BLOB, _HERE, _BLOB.digest):
        await world.registry.delete_blob(_HERE, _BLOB.digest)


async def delete_all(world: _World) -> None:
    """Deletes the manifest, then its blob."""
    await delete_manifest(_IMAGE)(world)
    await delete_blob(world)


async def ask(world: _World) -> None:
    """Asks for the blob as a pusher would."""
    async with world.ledger.deed(Kind.ASK_BLOB, _HERE, _BLOB.digest):
        await world.registry.resolve_blob(_HERE, _BLOB.digest, for_push=True)


async def mount(world: _World) -> None:
    """Mounts the blob from where it is to where it is."""
    async with world.ledger.deed(Kind.ASK_BLOB, _HERE, _BLOB.digest):
        await world.registry.mount_blob(_HERE, _BLOB.digest, source=_HERE)


async def upload(world: _World) -> None:
    """Pushes the blob."""
    async with world.ledger.deed(Kind.ADD_BLOB, _HERE, _BLOB.digest):
        session = await world.registry.start_upload(_HERE)
        await world.registry.append_upload(_HERE, session.id, chunked(_BLOB.content), start=0)
        await world.registry.finish_upload(_HERE, session.id, _BLOB.digest)


async def read(world: _World) -> None:
    """Reads what is there all the time."""
    try:
        assert await read_bytes(world.registry, _HERE, _BLOB.digest) == _BLOB.content
    except BlobUnknown as refusal:
        raise AssertionError("what is there all the time was not found") from refusal


async def collect(world: _World) -> None:
    """Collects, when everything that is has become old."""
    world.scheduler.now += 2 * KEEP
    await Collector(world.store, world.scheduler.clock).run()


async def upload_and_collect(world: _World) -> None:
    """Pushes the blob again, after which the older copy is garbage."""
    await upload(world)
    await Collector(world.store, world.scheduler.clock).run()


_TAGGED, _NAMED = (_IMAGE, "tag"), _OTHER.digest


@pytest.mark.parametrize(
    ("past", "one", "other"),
    [
        pytest.param([], put(_IMAGE), delete_blob, id="put and delete blob"),
        pytest.param([], ask, delete_blob, id="ask for a blob and delete it"),
        pytest.param([], mount, delete_blob, id="mount a blob on itself and delete it"),
        pytest.param([], upload, delete_blob, id="push a blob again and delete it"),
        pytest.param([_TAGGED], put(*_TAGGED), delete_manifest(_IMAGE), id="put again and delete"),
        pytest.param([], put(*_TAGGED), delete_manifest(_IMAGE), id="put and delete"),
        pytest.param([], put(*_TAGGED, absent=True), delete_manifest(_IMAGE), id="put if absent and delete"),
        pytest.param([], put(*_TAGGED), delete_tag, id="put and delete the tag"),
        pytest.param([(_OTHER, "tag")], put(*_TAGGED, named=_NAMED), delete_tag, id="put on condition and delete tag"),
        pytest.param([(_OTHER, "tag")], put(*_TAGGED), delete_manifest(_OTHER), id="move the tag and delete the old"),
        pytest.param([], put(*_TAGGED, absent=True), put(_OTHER, "tag", absent=True), id="two claim a tag"),
        pytest.param([_TAGGED], delete_manifest(_IMAGE), delete_manifest(_IMAGE), id="two delete a manifest"),
        pytest.param([_TAGGED], delete_manifest(_IMAGE), delete_all, id="two delete a manifest, one its blob"),
        pytest.param([_TAGGED], put(_INDEX, "index"), put(*_TAGGED), id="put an index and its child again"),
        pytest.param([_TAGGED, "collected"], ask, delete_all, id="ask for what only a manifest links"),
        pytest.param([_TAGGED, "collected"], put(_IMAGE), delete_all, id="put again what only a manifest links"),
        pytest.param([_TAGGED, "collected"], read, upload_and_collect, id="read while the copy is replaced"),
        pytest.param([_TAGGED, "collected"], ask, upload_and_collect, id="ask while the copy is replaced"),
        pytest.param([], upload, collect, id="push, suspended for days"),
        pytest.param([], put(*_TAGGED), collect, id="put, suspended for days"),
    ],
)
@pytest.mark.parametrize("swapped", [False, True], ids=["", "swapped"])
def test_two_requests_leave_only_what_was_answered(
    past: Sequence[Any], one: Act, other: Act, swapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every way to cut one into the other keeps every promise, before and after collection."""
    for first in itertools.count():
        then = -1
        for then in itertools.count():
            numbers = itertools.count(1)
            monkeypatch.setattr(layout, "new_generation", lambda numbers=numbers: f"{next(numbers):032x}")
            if not _duel(past, (other, one) if swapped else (one, other), first, then):
                break
        if then == 0:
            return


def test_a_push_whose_bytes_were_collected_is_not_answered() -> None:
    """A worker suspended for days between storing bytes and recording them finds them gone, and says so."""
    for first in itertools.count():
        scheduler = Scheduler(0, leap=0)
        store = MemoryStore(clock=scheduler.clock)
        stepped = SteppedStore(store, scheduler)
        registry = complete(LocalRegistry.open(stepped, clock=scheduler.clock))
        ledger = Ledger(itertools.count().__next__, scheduler.clock)
        one, other = (Actor(_answered(act, _World(registry, stepped, ledger, scheduler))) for act in (upload, collect))
        scheduler.duel(one, other, first=first, then=1000)
        if one.calls <= first + 1:
            return  # it was over before the other began
        if ledger.deeds[0].outcome is Outcome.DONE:
            assert complete(registry.resolve_blob(_HERE, _BLOB.digest)).size == _BLOB.descriptor.size


def _duel(past: Sequence[Any], acts: tuple[Act, Act], first: int, then: int) -> bool:
    scheduler = Scheduler(0, leap=0)
    store = MemoryStore(clock=scheduler.clock)
    ledger = Ledger(itertools.count().__next__, scheduler.clock)
    complete(_build(store, scheduler, past))
    stepped = SteppedStore(store, scheduler)
    registry = complete(LocalRegistry.open(stepped, clock=scheduler.clock))
    one, other = (Actor(_answered(act, _World(registry, stepped, ledger, scheduler))) for act in acts)
    cut = scheduler.duel(one, other, first=first, then=then)
    complete(_judge(store, scheduler, ledger))
    return cut


async def _answered(act: Act, world: _World) -> None:
    with suppress(OciError):  # a refusal is an answer; the ledger has it
        await act(world)


async def _build(store: MemoryStore, scheduler: Scheduler, past: Sequence[Any]) -> None:
    registry = await LocalRegistry.open(store, clock=scheduler.clock)
    await push_blobs(registry, _HERE, [*_IMAGE.blobs, *_OTHER.blobs])
    for done in past:
        if done == "collected":
            scheduler.now += 2 * KEEP
            await Collector(store, scheduler.clock).run()
        else:
            await push(registry, _HERE, *done)


async def _judge(store: MemoryStore, scheduler: Scheduler, ledger: Ledger) -> None:
    registry = await LocalRegistry.open(store, clock=scheduler.clock)
    await ledger.check(registry)
    scheduler.now += 2 * KEEP
    await Collector(store, scheduler.clock).run()
    await ledger.check(registry)
    with suppress(ManifestBlobUnknown):
        await push(registry, _HERE, _INDEX, "last")
        return
    raise AssertionError("a push fails for ever")
