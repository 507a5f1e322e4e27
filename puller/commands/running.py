"""The event loop of a verb."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_async"]

_T = TypeVar("_T")


def run_async(work: Coroutine[Any, Any, _T]) -> _T:
    """What the work returns or raises. SIGTERM, and SIGHUP unless it is ignored (``nohup``), end it like Ctrl-C does:
    cancelled, cleaned up, what arrived kept.

    Raises:
        KeyboardInterrupt: it was ended.
    """
    results: list[_T] = []
    with asyncio.Runner() as runner:
        try:
            runner.run(_supervised(work, results))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
    return results[0]


async def _supervised(work: Coroutine[Any, Any, _T], results: list[_T]) -> None:
    """Puts what the work returns into ``results``: the runner would spell out what its task returns, in full
    (``signal.getsignal`` looks for the handler among its own by value, and fails with its repr)."""
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if task is not None and signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    results.append(await work)
