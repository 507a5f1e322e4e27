"""``MemoryStore`` keeps the contract, and tells the time it is given."""

from __future__ import annotations

import pytest
from moorage.storage_backends.base import ObjectStore
from moorage.storage_backends.memory import MemoryStore

from tests.suites.store_suite import StoreSuite


class TestMemoryStore(StoreSuite):
    """The suite over memory."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """A store without anything in it."""
        return MemoryStore()


async def test_modified_is_told_by_the_clock() -> None:
    """Objects are marked with the time of the clock that the store was given."""
    times = iter([100.0, 250.5])
    store = MemoryStore(clock=lambda: next(times))
    await store.put("a", b"")
    await store.put("b", b"")
    assert ((await store.stat("a")).modified, (await store.stat("b")).modified) == (100.0, 250.5)


async def test_two_stores_that_do_the_same_are_equal() -> None:
    """Versions and upload ids are counted, so a test that runs twice sees the same."""
    seen = []
    for _ in range(2):
        store = MemoryStore(clock=lambda: 0.0)
        upload = await store.create_upload("a", b"")
        await store.commit_upload(upload, 0)
        seen.append((upload, await store.put("b", b""), await store.stat("a")))
    assert seen[0] == seen[1]
