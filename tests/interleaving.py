"""Deterministic interleaving: a seeded scheduler decides who makes the next storage call.

Law: every task parks before each storage primitive (and before each entry of a list, because lists are no snapshots),
so between two turns nothing else runs, and a seed replays its schedule. A task that is not picked for long is a
replica that was suspended.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any

from moorage.storage_backends.base import ANY, CommonPrefix, Expect, ObjectInfo, ObjectStore, Reading, UploadInfo
from moorage.storage_backends.errors import KeyNotFound

__all__ = ["DoomBlind", "Scheduler", "SteppedStore", "saw_doom"]

_actor: ContextVar[int] = ContextVar("actor", default=-1)
_dooms_seen: ContextVar[list[str]] = ContextVar("dooms_seen")
_HOPS = 200


def saw_doom() -> bool:
    """Whether the running actor has read a doom that was there."""
    return bool(_dooms_seen.get())


class Scheduler:
    """Runs actors one storage call at a time.

    Args:
        seed: decides the schedule, and how long an actor tends to stay on turn: switching at every call finds other
            faults than letting one actor run far ahead.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._loyalty = self._random.choice([0.0, 0.5, 0.8, 0.95])
        self._parked: list[tuple[int, asyncio.Future[None]]] = []
        self._on_turn = -1
        self.turns = 0

    async def turn(self) -> None:
        """Parks the calling actor until it is picked."""
        future = asyncio.get_running_loop().create_future()
        self._parked.append((_actor.get(), future))
        await future

    async def run(self, actors: Sequence[Coroutine[Any, Any, None]], *, limit: int = 20_000) -> None:
        """Runs all actors to their end, and raises the first exception of any of them.

        Raises:
            RuntimeError: they made more than ``limit`` calls, or wait for something else than a turn.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_as_actor(number, actor)) for number, actor in enumerate(actors)]
            while not all(task.done() for task in tasks):
                await self._settle(tasks)
                if self._parked:
                    self._pick().set_result(None)
                    self.turns += 1
                if self.turns > limit:
                    raise RuntimeError("an actor does not come to an end")

    def _pick(self) -> asyncio.Future[None]:
        stay = [place for place, (actor, _) in enumerate(self._parked) if actor == self._on_turn]
        loyal = stay and self._random.random() < self._loyalty
        self._on_turn, future = self._parked.pop(stay[0] if loyal else self._random.randrange(len(self._parked)))
        return future

    async def _settle(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Waits until every unfinished task is parked."""
        for _ in range(_HOPS):
            await asyncio.sleep(0)
            if len(self._parked) >= sum(not task.done() for task in tasks):
                return
        if not self._parked and not all(task.done() for task in tasks):
            raise RuntimeError("an actor waits for something else than its turn")


async def _as_actor(number: int, actor: Coroutine[Any, Any, None]) -> None:
    _actor.set(number)
    _dooms_seen.set([])
    await actor


class SteppedStore:
    """A store whose every primitive waits for its turn."""

    def __init__(self, store: ObjectStore, scheduler: Scheduler) -> None:
        self._store = store
        self._turn = scheduler.turn
        self.capabilities = store.capabilities

    async def stat(self, key: str) -> ObjectInfo:
        """See ``ObjectStore``; takes a note of dooms that are there."""
        await self._turn()
        info = await self._store.stat(key)
        if key.startswith("doom/"):
            _dooms_seen.get().append(key)
        return info

    @asynccontextmanager
    async def read(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[Reading]:
        """See ``ObjectStore``."""
        await self._turn()
        async with self._store.read(key, start=start, stop=stop) as reading:
            yield reading

    async def put(self, key: str, data: bytes, *, expect: Expect = ANY) -> str:
        """See ``ObjectStore``."""
        await self._turn()
        return await self._store.put(key, data, expect=expect)

    async def copy(self, src: str, dst: str) -> ObjectInfo:
        """See ``ObjectStore``."""
        await self._turn()
        return await self._store.copy(src, dst)

    async def delete(self, key: str, *, expect: Expect = ANY) -> None:
        """See ``ObjectStore``."""
        await self._turn()
        await self._store.delete(key, expect=expect)

    async def list(
        self, prefix: str, *, after: str = "", delimiter: str | None = None
    ) -> AsyncIterator[ObjectInfo | CommonPrefix]:
        """See ``ObjectStore``."""
        await self._turn()
        async for entry in self._store.list(prefix, after=after, delimiter=delimiter):
            yield entry
            await self._turn()

    async def create_upload(self, key: str, note: bytes) -> str:
        """See ``ObjectStore``."""
        await self._turn()
        return await self._store.create_upload(key, note)

    async def append_upload(
        self, upload: str, offset: int, data: AsyncIterable[bytes], note: Callable[[int], bytes]
    ) -> UploadInfo:
        """See ``ObjectStore``."""
        await self._turn()
        return await self._store.append_upload(upload, offset, data, note)

    async def stat_upload(self, upload: str) -> UploadInfo:
        """See ``ObjectStore``."""
        await self._turn()
        return await self._store.stat_upload(upload)

    async def commit_upload(self, upload: str, offset: int) -> ObjectInfo:
        """See ``ObjectStore``."""
        await self._turn()
        return await self._store.commit_upload(upload, offset)

    async def abort_upload(self, upload: str) -> None:
        """See ``ObjectStore``."""
        await self._turn()
        await self._store.abort_upload(upload)

    async def presign(self, key: str, ttl: int, *, headers: Mapping[str, str]) -> str | None:
        """See ``ObjectStore``."""
        return await self._store.presign(key, ttl, headers=headers)

    def batch(self) -> AbstractAsyncContextManager[None]:
        """See ``ObjectStore``."""
        return self._store.batch()

    async def close(self) -> None:
        """The store belongs to the test."""


class DoomBlind(SteppedStore):
    """A writer's store that never shows a doom: the writer then checks nothing."""

    async def stat(self, key: str) -> ObjectInfo:
        """See ``ObjectStore``."""
        if key.startswith("doom/"):
            await self._turn()
            raise KeyNotFound(key)
        return await super().stat(key)
