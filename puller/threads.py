"""Blocking work beside the event loop, in daemon threads that are kept for the next piece of work.

Law: as many threads as there is work, because a bulk download keeps its thread for minutes and the few threads of
``asyncio.to_thread`` would all wait for each other. Cancelling the await does not stop the work; whoever cancels makes
it end (closes its socket). Daemon threads: no interpreter waits at its exit for a registry that does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["in_thread", "to_the_end"]

_Result = TypeVar("_Result")
_Job = Callable[[], None]
_idle: list[SimpleQueue[_Job]] = []
os.register_at_fork(after_in_child=_idle.clear)  # threads do not survive a fork


async def in_thread(work: Callable[[], _Result]) -> _Result:
    """What ``work`` returns or raises, done in another thread."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Result] = loop.create_future()

    def deliver(result: _Result | None, failure: BaseException | None) -> None:
        if done.cancelled():
            return
        if failure is not None:
            done.set_exception(failure)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # None only where _Result is None

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as exc:  # noqa: BLE001 (raised where it is awaited)
            failure = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(deliver, result, failure)

    _hand_over(run)
    return await done


async def to_the_end(work: Callable[[], _Result]) -> _Result:
    """The same for work that must not be left behind: a cancellation waits until it has ended."""
    working = asyncio.ensure_future(in_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise


def _hand_over(job: _Job) -> None:
    try:
        jobs = _idle.pop()
    except IndexError:
        jobs = SimpleQueue()
        threading.Thread(target=_serve, args=(jobs,), name="moorage", daemon=True).start()
    jobs.put(job)


def _serve(jobs: SimpleQueue[_Job]) -> None:
    while True:
        jobs.get()()
        _idle.append(jobs)
