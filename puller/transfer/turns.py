"""Whose turn it is to be sent.

Law: four blobs at a time, and of big ones two until a second has passed. A registry nearby is waited for because of its
processors: where four big blobs share them, the biggest is alone in the end and the other processors are idle. Over a
slow way a second is little, and there more connections bring more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from moorage.registry.oci import Descriptor

__all__ = ["BIG", "Turns"]

BIG = 32 * 1024 * 1024
"""Bytes from which on a blob is a big one."""

_ALL, _FIRST = 4, 2


class Turns:
    """For the blobs of one copy. ``patience``: seconds for which only the first big blobs are sent."""

    def __init__(self, *, patience: float = 1.0) -> None:
        self._patience = patience
        self._slots, self._big = asyncio.Semaphore(_ALL), asyncio.Semaphore(_FIRST)
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
        for _ in range(_ALL - _FIRST):
            self._big.release()
