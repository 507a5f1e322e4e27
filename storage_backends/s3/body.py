"""The body of a request, sent in blocks.

Law: a timeout of a socket counts for all the bytes of one call. Given the whole body at once, a line would have to
carry 12 MiB within it or never; given blocks, it has to carry one.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["Body"]

_BLOCK: Final = 256 * 1024


class Body:
    """A file for reading over ``data``, which is not copied."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = memoryview(data)
        self._at = 0

    def __len__(self) -> int:
        return len(self._data)

    def read(self, size: int = -1) -> memoryview:
        """The next bytes, up to ``size`` or a block, whichever is more: who sends asks for little, at some cost."""
        stop = len(self._data) if size < 0 else self._at + max(size, _BLOCK)
        piece = self._data[self._at : stop]
        self._at += len(piece)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to ``offset``; returns where that is."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._data)}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at
