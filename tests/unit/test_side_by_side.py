"""Work on several things of one request: in turn on a store at hand, at once on one that is far away."""

from __future__ import annotations

import asyncio

import pytest
from moorage.registry.store.side_by_side import side_by_side
from moorage.storage_backends.base import Capabilities
from moorage.storage_backends.errors import StorageUnavailable
from moorage.storage_backends.memory import MemoryStore


class _Work:
    """Says what was done; ``most``: how many were under way at once."""

    def __init__(self, failing: set[int] | None = None) -> None:
        self.failing = failing or set()
        self.running = self.most = 0
        self.done: list[int] = []

    async def __call__(self, number: int) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        for _ in range(100 - number):  # the later, the sooner done
            await asyncio.sleep(0)
        self.running -= 1
        self.done.append(number)
        if number in self.failing:
            raise StorageUnavailable(str(number))
        return f"<{number}>"


def _store(concurrency: int) -> MemoryStore:
    store = MemoryStore()
    store.capabilities = Capabilities(conditional_delete=True, concurrency=concurrency)
    return store


@pytest.mark.parametrize("concurrency", [1, 4, 100])
async def test_answers_come_in_the_order_of_the_items(concurrency: int) -> None:
    """Whoever is done first; never more at once than the store wants, and as many as that."""
    work = _Work()
    assert await side_by_side(_store(concurrency), range(10), work) == [f"<{number}>" for number in range(10)]
    assert work.most == min(concurrency, 10)
    assert sorted(work.done) == list(range(10))
    assert await side_by_side(_store(concurrency), [], work) == []


async def test_a_failure_is_told_when_nothing_goes_on_any_more() -> None:
    """The first one in the order of the items; what was begun has ended, so no straggler undoes a clean-up."""
    work = _Work(failing={3, 7})
    with pytest.raises(StorageUnavailable, match="3"):
        await side_by_side(_store(4), range(10), work)
    assert (work.running, len(work.done)) == (0, 10)


async def test_at_hand_the_first_failure_ends_it() -> None:
    """As a plain loop would."""
    work = _Work(failing={3})
    with pytest.raises(StorageUnavailable, match="3"):
        await side_by_side(_store(1), range(10), work)
    assert work.done == [0, 1, 2, 3]
