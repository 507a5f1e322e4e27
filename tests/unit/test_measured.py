"""The measured store: counts what is asked, and changes nothing."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from moorage.registry.store.measured import OPERATIONS, MeasuredStore
from moorage.storage_backends.base import ObjectStore
from moorage.storage_backends.errors import KeyNotFound, StorageUnavailable
from moorage.storage_backends.memory import MemoryStore


class _Figures:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    def storage(self, operation: int, nanoseconds: int, *, failed: bool) -> None:
        assert nanoseconds >= 0
        self.counts[OPERATIONS[operation]] += 1
        self.failures[OPERATIONS[operation]] += failed


async def _bytes(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_every_operation_is_counted_once() -> None:
    """One call, one count, of the right name."""
    figures = _Figures()
    store = MeasuredStore(MemoryStore(), figures)
    async with store.batch():
        await store.put("a", b"1")
    await store.stat("a")
    async with store.read("a") as reading:
        assert [chunk async for chunk in reading] == [b"1"]
    await store.copy("a", "b")
    assert [getattr(entry, "key", "") async for entry in store.list("")] == ["a", "b"]
    await store.delete("a")
    upload = await store.create_upload("c", b"")
    await store.append_upload(upload, 0, _bytes(b"x"), lambda _: b"")
    await store.stat_upload(upload)
    await store.commit_upload(upload, 1)
    await store.abort_upload(upload)
    await store.presign("b", 1, headers={})
    assert figures.counts == dict.fromkeys(OPERATIONS, 1)
    assert sum(figures.failures.values()) == 0


async def test_an_absent_key_is_an_answer_not_a_failure() -> None:
    """What the port says in the ordinary course is no fault of the store."""
    figures = _Figures()
    store = MeasuredStore(MemoryStore(), figures)
    with pytest.raises(KeyNotFound):
        await store.stat("a")
    with pytest.raises(KeyNotFound):
        async with store.read("a"):
            pass
    assert figures.counts == {"stat": 1, "read": 1}
    assert sum(figures.failures.values()) == 0


class _Dead(MemoryStore):
    async def stat(self, key: str) -> Any:
        raise StorageUnavailable(key)


async def test_a_store_that_cannot_answer_has_failed() -> None:
    """The error goes on unchanged, and is counted."""
    figures = _Figures()
    with pytest.raises(StorageUnavailable, match="k"):
        await MeasuredStore(_Dead(), figures).stat("k")
    assert figures.failures == {"stat": 1}


async def test_an_empty_listing_is_counted() -> None:
    """A listing counts when it has told its first entry, or that there is none."""
    figures = _Figures()
    store = MeasuredStore(MemoryStore(), figures)
    assert [entry async for entry in store.list("x/")] == []
    assert figures.counts == {"list": 1}


def test_every_method_of_the_port_is_spelled_out() -> None:
    """A primitive added later is not passed through by accident, uncounted."""
    port = {name for name, _ in inspect.getmembers(ObjectStore, inspect.isfunction) if not name.startswith("_")}
    assert port <= set(vars(MeasuredStore))
