"""Work on several things of one request, at the same time where the store is far away.

Law: when it ends, nothing goes on: what failed is told only after the rest is done, so that cleaning up finds no
stragglers. Steps whose order matters are calls of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from moorage.storage_backends.base import ObjectStore

__all__ = ["side_by_side"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


async def side_by_side(
    store: ObjectStore, items: Iterable[_Item], work: Callable[[_Item], Awaitable[_Result]]
) -> list[_Result]:
    """What ``work`` makes of each item, in the order of the items; so many at once as is good for the store."""
    limit = store.capabilities.concurrency
    if limit == 1:
        return [await work(item) for item in items]
    turns = asyncio.Semaphore(limit)

    async def take_turn(item: _Item) -> _Result:
        async with turns:
            return await work(item)

    outcomes = await asyncio.gather(*map(take_turn, items), return_exceptions=True)
    results = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return results
