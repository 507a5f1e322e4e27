"""Several things at a time; the first failure stops the rest and is what the caller sees."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

__all__ = ["for_each"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


async def for_each(items: Iterable[_Item], work: Callable[[_Item], Awaitable[_Result]], *, limit: int) -> list[_Result]:
    """What ``work`` made of each item, in their order; at most ``limit`` at a time."""
    slots = asyncio.Semaphore(limit)

    async def run(item: _Item) -> _Result:
        async with slots:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(item)) for item in items]
    except BaseExceptionGroup as failures:
        raise _first(failures)  # noqa: B904 ("from" would overwrite the failure's own cause)
    return [task.result() for task in tasks]


def _first(failure: BaseException) -> BaseException:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
