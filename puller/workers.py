"""The threads of one pull: they stop when it ends, and it does not end before them.

Law: a thread may wait for bytes, for a verified blob or for another process; each of these waits ends when the pull
stops. So whatever a thread is making is removed before the pull returns or raises.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, TypeVar

from moorage.puller.threads import in_thread
from moorage.registry.oci import Digest

__all__ = ["Stopped", "Workers", "first_of"]

_Result = TypeVar("_Result")


class Stopped(Exception):
    """The pull is over; seen only by its threads."""


class Workers:
    """Use it as an async context: when the block ends, the threads are told to stop and are waited for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_stopped = False
        self._verified: set[Digest] = set()
        self._running: set[asyncio.Task[object]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        while self._running:
            try:
                await asyncio.wait(self._running)
            except asyncio.CancelledError:
                continue  # only a pull that failed has threads left, so its failure goes on after this

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """What ``work`` returns or raises, done in a thread."""
        task = asyncio.ensure_future(in_thread(work))
        self._running.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def verified(self, digest: Digest) -> None:
        """Lets those go on who wait for this blob."""
        with self._changed:
            self._verified.add(digest)
            self._changed.notify_all()

    def wait_until_verified(self, digests: Iterable[Digest]) -> None:
        """For threads: returns when all these blobs are stored.

        Raises:
            Stopped: the pull is over.
        """
        wanted = set(digests)
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or wanted <= self._verified)
        self.check()

    def check(self) -> None:
        """For threads, now and then.

        Raises:
            Stopped: the pull is over.
        """
        if self._is_stopped:
            raise Stopped

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # it is seen here where nobody waits for the result any more


def first_of(failure: BaseException) -> BaseException:
    """The first of the failures of a group of tasks: what the others were stopped for."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
