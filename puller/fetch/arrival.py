"""Where the bytes of one blob can be read: before they come, while they come, and once they are stored."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import BinaryIO

__all__ = ["Arrival", "Opener"]

Opener = Callable[[], BinaryIO]


class Arrival:
    """Hands out readers of a blob. ``open`` waits until there is something to read from; any thread may call it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._opener: Opener | None = None
        self._is_stored = False

    def open(self) -> BinaryIO:
        """A reader from the first byte on.

        Raises:
            BaseException: what the fetch failed with.
        """
        with self._changed:
            while self._opener is None:
                self._changed.wait()
            return self._opener()

    def set(self, opener: Opener | None) -> None:
        """From now on readers come from ``opener``; None lets them wait. Readers made before stay as they are."""
        with self._changed:
            self._opener = opener
            self._changed.notify_all()

    def store(self, opener: Opener) -> None:
        """The blob is stored; readers come from ``opener`` for good."""
        self._is_stored = True
        self.set(opener)

    def end(self, failure: BaseException) -> None:
        """From now on ``open`` raises ``failure``, unless the blob is stored."""
        with self._changed:
            if self._is_stored:
                return

        def refuse() -> BinaryIO:
            raise failure

        self.set(refuse)
