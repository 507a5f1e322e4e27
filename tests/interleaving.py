"""Deterministic interleaving: a seeded scheduler decides who makes the next storage call.

Law: every actor parks before each storage primitive, and before each entry of a list, because lists are no snapshots.
Between two turns nothing else runs and no event loop is needed, so a seed replays its schedule. An actor that is not
picked for long is a replica that was suspended; one that is killed makes no further call, not even in its clean-up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from moorage.storage_backends.base import ANY, CommonPrefix, Expect, ObjectInfo, ObjectStore, Reading, UploadInfo
from moorage.storage_backends.errors import KeyNotFound

__all__ = ["Actor", "Gate", "Killed", "Scheduler", "SteppedStore", "complete"]

_T = TypeVar("_T")
_TICK = 0.001
_HORIZONS = (80, 400, 400, 1000)


class Killed(BaseException):
    """The actor's process has died."""


class _Turn:
    """What an actor waits for."""

    def __await__(self) -> Generator[_Turn, None, None]:
        yield self


@dataclass(slots=True)
class Actor:
    """One task. ``fate``: thrown at its call number ``doomsday``; ``dooms_seen``: dooms that it read and were there."""

    run: Coroutine[Any, Any, None]
    fate: type[BaseException] | None = None
    doomsday: int = 0
    calls: int = 0
    is_dead: bool = False
    is_over: bool = False
    dooms_seen: set[str] = field(default_factory=set)


class Scheduler:
    """Runs actors one storage call at a time, and is their clock.

    Half of the seeds pick anybody, or stay with whoever is on turn for a while; the other half run one actor as far as
    he gets and suspend him at a few moments only, which finds what needs few but long suspensions. At these moments the
    clock may leap ahead.

    Args:
        seed: decides the schedule.
        leap: seconds, the most that the clock leaps.
    """

    def __init__(self, seed: int, *, leap: float) -> None:
        self._random = random.Random(seed)
        self._loyalty = self._random.choice([0.0, 0.5, 0.9, 1.0, 1.0, 1.0])
        horizon = self._random.choice(_HORIZONS)
        self._moments = {self._random.randrange(horizon) for _ in range(self._random.randint(1, 5))}
        self._leaps = self._random.choice([0.0, 0.5])
        self._leap = leap
        self.turns = 0
        self.now = 0.0
        self.current: Actor | None = None

    def clock(self) -> float:
        """Seconds; a little more with every turn."""
        return self.now

    async def turn(self) -> None:
        """Parks the running actor until it is picked; at once for who is none.

        Raises:
            Killed: the actor is dead.
        """
        actor = self.current
        if actor is None:
            return
        if not actor.is_dead:
            await _Turn()
        if actor.is_dead:
            raise Killed

    def answered(self) -> None:
        """Nothing is lost here."""

    def saw(self, doom: str) -> None:
        """Notes that the running actor met a doom."""
        if self.current is not None:
            self.current.dooms_seen.add(doom)

    def run(self, actors: list[Actor], *, limit: int = 50_000) -> None:
        """Runs all actors to their end; what one of them raises goes on to the caller.

        Raises:
            RuntimeError: they made more than ``limit`` calls.
        """
        alive = self._random.sample(actors, len(actors))
        while alive:
            actor = alive[0] if self._random.random() < self._loyalty else self._random.choice(alive)
            alive.remove(actor)
            if self.resume(actor):
                alive.insert(0, actor)
            self.turns += 1
            self.now += _TICK
            if self.turns in self._moments:
                self._interrupt(alive)
            if self.turns > limit:
                raise RuntimeError("an actor does not come to an end")

    def duel(self, one: Actor, other: Actor, *, first: int, then: int) -> bool:
        """One makes ``first`` calls, the other ``then``, one goes on to his end, then the other.

        Returns:
            Whether both were cut where it was asked; else there were fewer calls.
        """
        cut = [self.resume(one) for _ in range(first + 1)] + [self.resume(other) for _ in range(then + 1)]
        for actor in (one, other):
            while self.resume(actor):
                self.now += _TICK
        return all(cut)

    def _interrupt(self, alive: list[Actor]) -> None:
        """Suspends whoever is on turn until all others have ended or were suspended too."""
        alive[:] = [*alive[1:], *alive[:1]]
        if self._random.random() < self._leaps:
            self.now += self._random.uniform(0, self._leap)

    def resume(self, actor: Actor) -> bool:
        """Lets the actor make one call; False when it has ended."""
        if actor.is_over:
            return False
        self.current = actor
        actor.calls += 1
        fate = actor.fate if actor.calls == actor.doomsday else None
        actor.is_dead = actor.is_dead or fate is Killed
        try:
            if fate is not None:
                actor.run.throw(fate())
            else:
                actor.run.send(None)
        except (StopIteration, Killed, asyncio.CancelledError):
            actor.is_over = True
            return False
        finally:
            self.current = None
        return True


def complete(run: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that waits for nobody."""
    try:
        run.send(None)
    except StopIteration as end:
        value: _T = end.value
        return value
    raise RuntimeError("it waits for something")


class Gate(Protocol):
    """Decides when a storage call happens, and whether it does."""

    async def turn(self) -> None:
        """Waits until the call may happen; raises what happens instead."""

    def answered(self) -> None:
        """The call has happened; raises if its answer is lost."""

    def saw(self, doom: str) -> None:
        """A doom was read that was there."""


class SteppedStore:
    """A store whose every primitive passes a gate. ``blind``: it hides dooms; ``skipped``: it loses puts like this."""

    def __init__(self, store: ObjectStore, gate: Gate, *, blind: bool = False, skipped: str = "") -> None:
        self._store, self._gate = store, gate
        self._blind, self._skipped = blind, skipped
        self.capabilities = store.capabilities

    async def stat(self, key: str) -> ObjectInfo:
        """See ``ObjectStore``; notes dooms that are there, or hides them from the blind."""
        if key.startswith("doom/") and self._blind:
            raise KeyNotFound(key)
        info = await self._do(lambda: self._store.stat(key))
        if key.startswith("doom/"):
            self._gate.saw(key)
        return info

    @asynccontextmanager
    async def read(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[Reading]:
        """See ``ObjectStore``."""
        await self._gate.turn()
        async with self._store.read(key, start=start, stop=stop) as reading:
            self._gate.answered()
            yield reading

    async def put(self, key: str, data: bytes, *, expect: Expect = ANY) -> str:
        """See ``ObjectStore``."""
        if self._skipped and self._skipped in key:
            return ""
        return await self._do(lambda: self._store.put(key, data, expect=expect))

    async def copy(self, src: str, dst: str) -> ObjectInfo:
        """See ``ObjectStore``."""
        return await self._do(lambda: self._store.copy(src, dst))

    async def delete(self, key: str, *, expect: Expect = ANY) -> None:
        """See ``ObjectStore``."""
        await self._do(lambda: self._store.delete(key, expect=expect))

    async def list(
        self, prefix: str, *, after: str = "", delimiter: str | None = None
    ) -> AsyncIterator[ObjectInfo | CommonPrefix]:
        """See ``ObjectStore``."""
        await self._gate.turn()
        async for entry in self._store.list(prefix, after=after, delimiter=delimiter):
            yield entry
            await self._gate.turn()

    async def create_upload(self, key: str, note: bytes) -> str:
        """See ``ObjectStore``."""
        return await self._do(lambda: self._store.create_upload(key, note))

    async def append_upload(
        self, upload: str, offset: int, data: AsyncIterable[bytes], note: Callable[[int], bytes]
    ) -> UploadInfo:
        """See ``ObjectStore``."""
        return await self._do(lambda: self._store.append_upload(upload, offset, data, note))

    async def stat_upload(self, upload: str) -> UploadInfo:
        """See ``ObjectStore``."""
        return await self._do(lambda: self._store.stat_upload(upload))

    async def commit_upload(self, upload: str, offset: int) -> ObjectInfo:
        """See ``ObjectStore``."""
        return await self._do(lambda: self._store.commit_upload(upload, offset))

    async def abort_upload(self, upload: str) -> None:
        """See ``ObjectStore``."""
        await self._do(lambda: self._store.abort_upload(upload))

    async def presign(self, key: str, ttl: int, *, headers: Mapping[str, str]) -> str | None:
        """See ``ObjectStore``."""
        return await self._store.presign(key, ttl, headers=headers)

    def batch(self) -> AbstractAsyncContextManager[None]:
        """See ``ObjectStore``."""
        return self._store.batch()

    async def close(self) -> None:
        """The store belongs to the test."""

    async def _do(self, call: Callable[[], Awaitable[_T]]) -> _T:
        await self._gate.turn()
        result = await call()
        self._gate.answered()
        return result
