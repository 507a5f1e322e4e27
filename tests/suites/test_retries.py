"""What a writer does when somebody came between: it begins again, and takes back nothing that others have said since.

Law: the writer is suspended at every one of its storage calls, others answer whole requests meanwhile, then it goes on.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest
from moorage.registry.oci import ManifestUnknown, Registry, Tag
from moorage.registry.store import LocalRegistry, layout
from moorage.registry.store.links import Links
from moorage.registry.store.records import Records
from moorage.registry.store.tags import Tags
from moorage.storage_backends.base import ObjectInfo, ObjectStore
from moorage.storage_backends.memory import MemoryStore

from tests.content import image, push, push_blobs, repository
from tests.interleaving import Actor, Scheduler, SteppedStore, complete

_HERE = repository("a")
_TAG = Tag("tag")
_IMAGE, _OTHER = image("one", layers=0), image("other", layers=0)

Meanwhile = Callable[[Registry], Awaitable[bool]]
"""What others do while the writer is suspended; whether they saw what it had done so far."""


async def see(registry: Registry) -> bool:
    """Others see the tag."""
    with suppress(ManifestUnknown):
        return (await registry.resolve_manifest(_HERE, _TAG)).digest == _IMAGE.digest
    return False


async def see_and_delete(registry: Registry) -> bool:
    """Others see the tag and delete it."""
    seen = await see(registry)
    if seen:
        await registry.delete_tag(_HERE, _TAG)
    return seen


async def see_and_move(registry: Registry) -> bool:
    """Others see the tag and move it."""
    seen = await see(registry)
    await push(registry, _HERE, _OTHER, str(_TAG))
    return seen


def put_while(meanwhile: Meanwhile) -> Iterator[tuple[MemoryStore, Registry, bool]]:
    """A put of the tagged image, whose record is deleted at each of its calls and which ``meanwhile`` meets at each."""
    for first in itertools.count():
        for second in itertools.count():
            scheduler, store = Scheduler(0, leap=0), MemoryStore()
            registry = complete(LocalRegistry.open(SteppedStore(store, scheduler)))
            complete(push_blobs(registry, _HERE, _IMAGE.blobs))
            put = Actor(_put(registry))
            in_time = all(scheduler.resume(put) for _ in range(first))
            complete(_delete(registry))
            late = not all(scheduler.resume(put) for _ in range(second))
            seen = complete(_run(meanwhile, registry))
            while scheduler.resume(put):
                pass
            yield store, registry, seen
            if late:
                break
        if not in_time:
            return


async def _put(registry: Registry) -> None:
    await registry.push_manifest(_HERE, _IMAGE.manifest, tags=[_TAG])


async def _delete(registry: Registry) -> None:
    with suppress(ManifestUnknown):  # it is not there yet
        await registry.delete_manifest(_HERE, _IMAGE.digest)


async def _run(meanwhile: Meanwhile, registry: Registry) -> bool:
    return await meanwhile(registry)


def test_a_put_that_begins_again_names_what_it_stored() -> None:
    """The tag of a put whose record was deleted before it was answered names the record that took its place."""
    for store, registry, _ in put_while(see):
        with suppress(ManifestUnknown):  # deleted after it was answered
            value = complete(Tags(store).read(_HERE, _TAG))
            assert complete(store.stat(layout.manifest_record(_HERE, _IMAGE.digest, value.generation)))
            assert complete(registry.resolve_manifest(_HERE, _TAG)).digest == _IMAGE.digest


def test_a_put_that_begins_again_leaves_a_deleted_tag_deleted() -> None:
    """Promise M9: who deleted a tag that he saw never meets it again."""
    for _, registry, seen in put_while(see_and_delete):
        if seen:
            with pytest.raises(ManifestUnknown):
                complete(registry.resolve_manifest(_HERE, _TAG))


def test_a_put_that_begins_again_leaves_a_tag_that_moved_on() -> None:
    """Promise M4: a value that was seen and replaced does not come back; its put was one write, not two."""
    for _, registry, seen in put_while(see_and_move):
        if seen:
            assert complete(registry.resolve_manifest(_HERE, _TAG)).digest == _OTHER.digest


def test_a_link_beside_those_of_manifests_is_taken_back_when_these_are_gone() -> None:
    """Who asks for a blob that only manifests link does not bring it back after its last link was dropped."""
    for first in itertools.count():
        scheduler, store = Scheduler(0, leap=0), MemoryStore()
        complete(push(complete(LocalRegistry.open(store)), _HERE, _IMAGE))
        complete(_drop_links(store, "/u-"))
        asker = Actor(_discard(_renew(SteppedStore(store, scheduler))))
        over = not all(scheduler.resume(asker) for _ in range(first))
        complete(_drop_links(store))
        while scheduler.resume(asker):
            pass
        assert complete(_links(store)) == []
        if over:
            return


def test_the_link_of_a_put_under_way_vouches_for_nobody() -> None:
    """Else a question would make a link on the strength of it, and the put go on on the strength of that."""
    store = MemoryStore()
    digest, generation = _IMAGE.blobs[0].digest, layout.new_generation()
    complete(store.put(layout.manifest_record(_HERE, _IMAGE.digest, generation), b"{}\n"))
    complete(store.put(link := layout.manifest_link(_HERE, digest, _IMAGE.digest, generation), b""))
    assert not complete(_renew(store))
    assert complete(_links(store)) == [link]


def _renew(store: ObjectStore) -> Coroutine[Any, Any, bool]:
    return Links(store, Records(store)).renew(_HERE, _IMAGE.blobs[0].digest)


async def _discard(answer: Awaitable[object]) -> None:
    await answer


async def _links(store: MemoryStore) -> list[str]:
    return [entry.key async for entry in store.list("links/") if isinstance(entry, ObjectInfo)]


async def _drop_links(store: MemoryStore, kind: str = "") -> None:
    for key in await _links(store):
        if kind in key:
            await store.delete(key)
