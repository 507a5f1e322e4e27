"""Whose turn it is to be sent.

Law: four blobs at a time, and of big ones no more than there are processors until a second has passed. A registry on
this machine is waited for because of them: where four big blobs share two processors, the biggest is alone in the end,
and one of them idle. Over a slow way a second is little, and there more connections bring more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from moorage.registry.oci import Descriptor

__all__ = ["BIG", "Turns"]

BIG = 32 * 1024 * 1024
"""Bytes from which on a blob is a big one."""

_ALL = 4
_FIRST = max(2, min(os.cpu_count() or 1, _ALL))


class Turns:
    """For the blobs of one copy. ``first``: big blobs at a time for ``patience`` seconds."""

    def __init__(self, *, first: int = _FIRST, patience: float = 1.0) -> None:
        self._first, self._patience = first, patience
        self._slots, self._big = asyncio.Semaphore(_ALL), asyncio.Semaphore(first)
        self._is_waiting = False

    @asynccontextmanager
    async def turn(self, blob: Descriptor) -> AsyncIterator[None]:
        """A block in which the blob is sent."""
        if blob.size < BIG:
            async with self._slots:
                yield
            return
        if not self._is_waiting:
            self._is_waiting = True
            asyncio.get_running_loop().call_later(self._patience, self._let_all_go)
        async with self._big, self._slots:
            yield

    def _let_all_go(self) -> None:
        for _ in range(_ALL - self._first):
            self._big.release()
