"""Writes zstd with several cores, and the same bytes with any number of them.

zstd's own threads cut the content into jobs whose size depends on the level alone. One worker already is that mode; no
worker is another one with other bytes, and is never used. The frame has a checksum and does not say its size, because
that is not known when it begins.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Self

import zstandard

__all__ = ["ZstdWriter"]

_MOST_WORKERS = ((9, 8), (12, 4), (19, 2))
"""Levels up to, and threads: more would take more than about 250 MiB (measured: 25, 50 and 120 MiB a thread)."""


class ZstdWriter:
    """Compresses what is written and hands it to ``sink``, in order, in the writer's thread.

    Args:
        workers: threads; None: as many as there are cores and as memory allows.
    """

    def __init__(self, sink: Callable[[bytes], None], *, level: int, workers: int | None = None) -> None:
        most = next(most for up_to, most in _MOST_WORKERS if level <= up_to)
        threads = workers or min(os.cpu_count() or 1, most)
        compressor = zstandard.ZstdCompressor(level=level, threads=threads, write_checksum=True)
        self._stream = compressor.compressobj()
        self._sink = sink

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._hand_on(self._stream.flush())

    def write(self, data: bytes) -> None:
        """Adds uncompressed bytes."""
        self._hand_on(self._stream.compress(data))

    def _hand_on(self, data: bytes) -> None:
        if data:
            self._sink(data)
