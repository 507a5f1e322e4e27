"""Locks between all processes and tasks that write one root.

Law: a lock is ``flock`` on a descriptor opened for it alone, so it holds between threads and tasks of one process as
well as between processes, and dies with its holder. Nobody holds two stripes at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from moorage.storage_backends.durability import uninterrupted
from moorage.storage_backends.errors import StorageUnavailable
from moorage.storage_backends.walk import Run

__all__ = ["Stripes", "briefly"]

_STRIPES: Final = 64
_PAUSE: Final = 0.0005
_PATIENCE: Final = 10.0
"""Seconds after which a lock that is held for microseconds must belong to a process that was stopped."""


T = TypeVar("T")


class Stripes:
    """A fixed number of locks that all keys share."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def create(self) -> None:
        """Makes the files of all locks: on a full disk a delete could make none any more."""
        for stripe in range(_STRIPES):
            os.close(self._open(stripe))

    @contextlib.contextmanager
    def hold(self, key: str, *, wait: bool) -> Iterator[None]:
        """Keeps every other writer of ``key`` out.

        Args:
            wait: blocks this thread until the lock is free.

        Raises:
            BlockingIOError: somebody else holds it, and ``wait`` is not set.
            StorageUnavailable: it did not become free.
        """
        fd = self._open(zlib.crc32(key.encode()) % _STRIPES)
        try:
            if wait:
                _wait(fd)
            else:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(fd)

    def _open(self, stripe: int) -> int:
        return os.open(f"{self._directory}/{stripe:02x}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _wait(fd: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(_PAUSE)
    raise StorageUnavailable("another process holds a lock of the store and does not go on")


async def briefly(run: Run, work: Callable[[bool], T]) -> T:
    """Does ``work(False)``, a few system calls under a lock, here; or ``work(True)``, which waits, in a thread."""
    try:
        return work(False)
    except BlockingIOError:
        return await uninterrupted(run(work, True))
