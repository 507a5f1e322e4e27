"""Attempts that must be steady, on a machine that may not be.

Law: a failure counts only if this event loop was never held up meanwhile; else the attempt is made again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

__all__ = ["steadily"]

_HELD_UP = 0.2
"""Seconds: less than half of any deadline of these tests, and more than a steady client needs between two steps."""


async def steadily(attempt: Callable[[], Awaitable[None]]) -> None:
    """Makes the attempt; one that fails is made again if this loop was held up meanwhile."""
    while True:
        longest, last = 0.0, time.monotonic()

        async def watch() -> None:
            nonlocal longest, last
            while True:
                await asyncio.sleep(0.01)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()

        watching = asyncio.create_task(watch())
        try:
            return await attempt()
        except (AssertionError, EOFError, OSError):
            if longest < _HELD_UP:
                raise
        finally:
            watching.cancel()
