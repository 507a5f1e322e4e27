"""Content hashed on its way to the store.

Law: nothing is copied and nobody waits for the hash but the end: while a thread hashes one batch of chunks, the next is
received and the last is written. At most two batches are in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

from moorage.registry.oci import Hasher
from moorage.storage_backends.pieces import Pieces

__all__ = ["HashedContent", "update"]

_OFF_LOOP: Final = 128 * 1024
"""Bytes from which hashing in a thread costs less than it delays others: a hop is about 0.1 ms, a MiB about 0.6 ms."""


class HashedContent:
    """The chunks of ``content``, unchanged. ``offset``: how many bytes, from byte 0 of the upload, ``hasher`` has seen.

    If ``content`` raises, what came before is still handed on, then the exception goes on (promise M7).
    """

    def __init__(self, content: AsyncIterable[bytes], offset: int, hasher: Hasher | None, pieces: Pieces) -> None:
        self._content = content
        self._pieces = pieces
        self._fault: Exception | None = None
        self._hashing: asyncio.Future[None] | None = None
        self.offset = offset
        self.hasher = hasher

    def hex(self, offset: int) -> str | None:
        """The hash of the upload's first ``offset`` bytes, if that is what was hashed."""
        if self.hasher is None or self._hashing is not None or self.offset != offset:
            return None
        return self.hasher.hexdigest()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for batch in self._batches():
            await self._hash(batch)
            for chunk in batch:
                yield chunk
        await self._settle()
        if self._fault is not None:
            raise self._fault

    async def _batches(self) -> AsyncIterator[list[bytes]]:
        batch: list[bytes] = []
        size = 0
        try:
            async for chunk in self._content:
                batch.append(chunk)
                size += len(chunk)
                if size >= self._pieces.size:
                    yield batch
                    batch, size = [], 0
        except Exception as fault:  # noqa: BLE001  # it goes on once what came before it was handed on
            self._fault = fault
        yield batch

    async def _hash(self, batch: list[bytes]) -> None:
        """Begins to hash a batch, once the one before is done."""
        await self._settle()
        if self.hasher is None:
            return
        size = sum(map(len, batch))
        if size < _OFF_LOOP:
            _update_all(self.hasher, batch)
        else:
            self._hashing = asyncio.get_running_loop().run_in_executor(None, _update_all, self.hasher, batch)
        self.offset += size

    async def _settle(self) -> None:
        if self._hashing is not None:
            await asyncio.shield(self._hashing)
            self._hashing = None


def _update_all(hasher: Hasher, chunks: list[bytes]) -> None:
    for chunk in chunks:
        hasher.update(chunk)


async def update(hasher: Hasher, chunk: bytes) -> None:
    """Hashes one chunk, off the loop where it is large."""
    if len(chunk) < _OFF_LOOP:
        hasher.update(chunk)
    else:
        await asyncio.to_thread(hasher.update, chunk)
