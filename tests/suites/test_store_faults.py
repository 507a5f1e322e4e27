"""A store that fails at any one call: nothing answered is lost, nothing half-done is seen, it then succeeds.

Law: every storage call of every request is the one that fails, in turn: refused, refused for want of room, done with
its answer lost, cancelled there, or the last one before the process dies.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from moorage.registry.oci import (
    BlobUnknown,
    Digest,
    ManifestUnknown,
    StorageFull,
    Tag,
    Unavailable,
)
from moorage.registry.store import LocalRegistry
from moorage.registry.store.links import GRACE
from moorage.storage_backends import errors as storage
from moorage.storage_backends.memory import MemoryStore

from tests.collector import KEEP, Collector
from tests.content import artifact, blob, chunked, image, index, push, push_blobs, read_bytes, repository
from tests.interleaving import Killed, SteppedStore
from tests.promises import leaks

_HERE, _THERE = repository("a"), repository("b")
_OLD, _NEW = image("old", layers=1, size=40), image("new", layers=1, size=40)
_SIGNATURE = artifact("signature", subject=_OLD.descriptor, layers=0)
_INDEX = index([_OLD])
_BLOB = blob("lone", 40)


class Fault:
    """Lets ``call - 1`` storage calls pass and fails the next. ``after``: that one is done, but its answer is lost."""

    def __init__(self, call: int, error: BaseException, *, after: bool = False) -> None:
        self._left, self._error, self._after = call, error, after
        self.happened = False

    async def turn(self) -> None:
        """Fails before the call; a dead process makes none any more."""
        if self.happened and isinstance(self._error, Killed):
            raise self._error
        self._count(counts=not self._after)

    def answered(self) -> None:
        """Fails after the call."""
        self._count(counts=self._after)

    def _count(self, *, counts: bool) -> None:
        self._left -= counts
        if counts and not self._left:
            self.happened = True
            raise self._error

    def saw(self, doom: str) -> None:
        """There are none."""


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


Act = Callable[[LocalRegistry], Awaitable[object]]


async def push_blob(registry: LocalRegistry) -> None:
    """Stores a blob."""
    await registry.push_blob(_HERE, _BLOB.descriptor, chunked(_BLOB.content))
    assert await read_bytes(registry, _HERE, _BLOB.digest) == _BLOB.content


async def upload(registry: LocalRegistry) -> None:
    """Stores a blob in two pieces."""
    session = await registry.start_upload(_HERE)
    await registry.append_upload(_HERE, session.id, chunked(_BLOB.content[:20]), start=0)
    await registry.append_upload(_HERE, session.id, chunked(_BLOB.content[20:]), start=20)
    await registry.finish_upload(_HERE, session.id, _BLOB.digest)
    assert await read_bytes(registry, _HERE, _BLOB.digest) == _BLOB.content


async def give_up(registry: LocalRegistry) -> None:
    """Opens two sessions, drops one, lets the other expire."""
    session = await registry.start_upload(_HERE)
    await registry.start_upload(_HERE)
    assert (await registry.upload_status(_HERE, session.id)).offset == 0
    await registry.cancel_upload(_HERE, session.id)
    await registry.expire_uploads(-1)


async def mount(registry: LocalRegistry) -> None:
    """Mounts a blob."""
    await registry.mount_blob(_THERE, _OLD.blobs[0].digest, source=_HERE)


async def ask(registry: LocalRegistry) -> None:
    """Asks as a pusher does."""
    await registry.resolve_blob(_HERE, _OLD.blobs[0].digest, for_push=True)


async def put(registry: LocalRegistry) -> None:
    """Puts a manifest that moves a tag."""
    await registry.push_manifest(_HERE, _NEW.manifest, tags=[Tag("tag"), Tag("second")])
    assert (await registry.resolve_manifest(_HERE, Tag("tag"))).digest == _NEW.digest


async def put_index(registry: LocalRegistry) -> None:
    """Puts an index."""
    await registry.push_manifest(_HERE, _INDEX.manifest, tags=[Tag("index")])


async def sign(registry: LocalRegistry) -> None:
    """Puts a referrer."""
    await push(registry, _HERE, _SIGNATURE)
    assert [entry.digest async for entry in registry.list_referrers(_HERE, _OLD.digest)] == [_SIGNATURE.digest]


async def delete_manifest(registry: LocalRegistry) -> None:
    """Deletes a tagged manifest; that it is gone already is as good."""
    with suppress(ManifestUnknown):
        await registry.delete_manifest(_HERE, _OLD.digest)
    await _expect_gone(registry, _OLD.digest)
    await _expect_gone(registry, Tag("tag"))


async def delete_tag(registry: LocalRegistry) -> None:
    """Deletes a tag; that it is gone already is as good."""
    with suppress(ManifestUnknown):
        await registry.delete_tag(_HERE, Tag("tag"))
    await _expect_gone(registry, Tag("tag"))


async def delete_blob(registry: LocalRegistry) -> None:
    """Deletes a blob that nothing needs; that it is gone already is as good."""
    with suppress(BlobUnknown):
        await registry.delete_blob(_HERE, _NEW.blobs[0].digest)
    with pytest.raises(BlobUnknown):
        await registry.resolve_blob(_HERE, _NEW.blobs[0].digest)


async def read(registry: LocalRegistry) -> None:
    """Reads by tag, lists everything."""
    assert (await registry.read_manifest(_HERE, Tag("tag"))).digest == _OLD.digest
    for item in _OLD.blobs:
        assert await read_bytes(registry, _HERE, item.digest) == item.content
    assert [str(tag) async for tag in registry.list_tags(_HERE)] == ["kept", "tag"]
    assert [str(name) async for name in registry.list_repositories()] == ["a"]
    assert [entry async for entry in registry.list_referrers(_HERE, _OLD.digest)] == []


async def _expect_gone(registry: LocalRegistry, reference: Tag | Digest) -> None:
    with pytest.raises(ManifestUnknown):
        await registry.resolve_manifest(_HERE, reference)


@pytest.mark.parametrize(
    ("error", "after"),
    [
        pytest.param(storage.StorageUnavailable, False, id="refused"),
        pytest.param(storage.StorageUnavailable, True, id="answer lost"),
        pytest.param(storage.StorageFull, False, id="full"),
        pytest.param(asyncio.CancelledError, False, id="cancelled"),
        pytest.param(asyncio.CancelledError, True, id="cancelled after"),
        pytest.param(Killed, False, id="killed"),
    ],
)
@pytest.mark.parametrize(
    "act",
    [push_blob, upload, give_up, mount, ask, put, put_index, sign, delete_manifest, delete_tag, delete_blob, read],
    ids=lambda act: act.__name__,
)
async def test_a_fault_at_any_call(act: Act, error: type[BaseException], after: bool) -> None:
    """Whichever call fails, what was there stays whole, and the same request then succeeds."""
    for call in itertools.count(1):
        clock = _Clock()
        store = MemoryStore(clock=clock)
        await _build(store, clock)
        fault = Fault(call, error(), after=after)
        registry = LocalRegistry(SteppedStore(store, fault), allow_sparse=False, clock=clock)
        try:
            await act(registry)
        except (Unavailable, StorageFull, asyncio.CancelledError, Killed):
            assert fault.happened
        if not fault.happened:
            assert call > 1
            return
        await _judge(store, clock, act)


async def _build(store: MemoryStore, clock: _Clock) -> None:
    registry = await LocalRegistry.open(store, clock=clock)
    await push(registry, _HERE, _OLD, "tag")
    await push(registry, _HERE, image("kept", layers=0), "kept")
    clock.now += GRACE / 2  # so that questions renew links
    await push_blobs(registry, _HERE, [*_NEW.blobs, *_SIGNATURE.blobs])
    clock.now += GRACE / 3


async def _judge(store: MemoryStore, clock: _Clock, act: Act) -> None:
    registry = await LocalRegistry.open(store, clock=clock)
    await _check_whole(registry)
    if act is not delete_manifest:
        assert (await registry.resolve_manifest(_HERE, _OLD.digest)).digest == _OLD.digest
    await act(registry)
    await _check_whole(registry)
    for _ in range(3):
        clock.now += 2 * KEEP
        await registry.expire_uploads(GRACE)
        await Collector(store, clock).run()
    await _check_whole(registry)
    assert not (leaked := await leaks(store)), leaked


async def _check_whole(registry: LocalRegistry) -> None:
    """Every tag and every referrer that is shown names a manifest that can be read, with all its blobs."""
    assert (await registry.read_manifest(_HERE, Tag("kept"))).content
    shown = [(await registry.resolve_manifest(_HERE, tag)).digest async for tag in registry.list_tags(_HERE)]
    shown += [entry.digest async for entry in registry.list_referrers(_HERE, _OLD.digest)]
    for digest in shown:
        document = (await registry.read_manifest(_HERE, digest)).document
        for part in document.blobs:
            assert len(await read_bytes(registry, _HERE, part.digest)) == part.size
