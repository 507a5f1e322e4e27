"""Writes gzip with all cores, and the same bytes with any number of them.

The stream is cut into blocks of fixed size; each is deflated on its own, knowing the 32 KiB before it, and the parts
are one ordinary gzip member. The header names no time, no file and no system (clients.md rule 29).
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

__all__ = ["GzipWriter"]

_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_BLOCK = 1024 * 1024
_WINDOW = 32 * 1024


class GzipWriter:
    """Compresses what is written and hands it to ``sink``, in order, in the writer's thread.

    Leaving the block normally ends the stream; memory stays below a few blocks per core. ``level``: zlib's, 1 to 9.
    """

    def __init__(self, sink: Callable[[bytes], None], *, level: int) -> None:
        self._sink = sink
        self._level = level
        self._workers = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._workers)
        self._waiting: deque[Future[bytes]] = deque()
        self._block = bytearray()
        self._before = b""
        self._checksum = 0
        self._size = 0

    def __enter__(self) -> Self:
        self._sink(_HEADER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def write(self, data: bytes) -> None:
        """Adds uncompressed bytes."""
        self._checksum = zlib.crc32(data, self._checksum)
        self._size += len(data)
        self._block += data
        while len(self._block) >= _BLOCK:
            self._submit(bytes(self._block[:_BLOCK]), is_last=False)
            del self._block[:_BLOCK]

    def _submit(self, block: bytes, *, is_last: bool) -> None:
        self._waiting.append(self._pool.submit(_deflate, block, self._before, self._level, is_last=is_last))
        self._before = block[-_WINDOW:]
        while len(self._waiting) > self._workers:
            self._sink(self._waiting.popleft().result())

    def _finish(self) -> None:
        self._submit(bytes(self._block), is_last=True)
        while self._waiting:
            self._sink(self._waiting.popleft().result())
        self._sink(self._checksum.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little"))


def _deflate(block: bytes, before: bytes, level: int, *, is_last: bool) -> bytes:
    deflater = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=before)
    return deflater.compress(block) + deflater.flush(zlib.Z_FINISH if is_last else zlib.Z_SYNC_FLUSH)
