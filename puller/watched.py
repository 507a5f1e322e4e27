"""A layer's blob as unpacking reads it: says how far it is, and ends when the pull does."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Self, cast

from moorage.puller.events import UnpackProgress
from moorage.registry.oci import Descriptor

__all__ = ["Progress", "watch"]

_INTERVAL = 0.1


class Progress:
    """Sums up what was read, and tells of it about ten times a second. ``tell`` is called in the reader's thread."""

    def __init__(self, blob: Descriptor, tell: Callable[[UnpackProgress], object]) -> None:
        self._blob = blob
        self._tell = tell
        self._size = 0
        self._told = time.monotonic()

    def add(self, size: int) -> None:
        """``size`` more bytes were read, or none because the end was reached."""
        self._size += size
        now = time.monotonic()
        if self._size and (size == 0 or now - self._told >= _INTERVAL):
            self._tell(UnpackProgress(self._blob, self._size))
            self._size, self._told = 0, now


def watch(open_blob: Callable[[], BinaryIO], check: Callable[[], None], progress: Progress) -> Callable[[], BinaryIO]:
    """An opener of the same bytes; each read asks ``check``, which may raise, and adds to ``progress``."""

    def open_watched() -> BinaryIO:
        return cast("BinaryIO", _Watched(open_blob(), check, progress))

    return open_watched


class _Watched:
    def __init__(self, file: BinaryIO, check: Callable[[], None], progress: Progress) -> None:
        self._file, self._check, self._progress = file, check, progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes."""
        self._check()
        data = self._file.read(size)
        self._check()
        self._progress.add(len(data))
        return data
