"""Big directories as they were read the last time, for as long as nothing in them has changed.

Law: the directory is asked at every listing. Each name that comes, goes or is replaced gives it a new modification
time; files never change under their names, but for the records of uploads, whose directory is not remembered. Nor is
one that changed a moment ago, because its clock may be too coarse to tell the next change from the last.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from operator import attrgetter
from typing import Final, NamedTuple

from moorage.storage_backends.base import UPLOADS, ObjectInfo, check_key
from moorage.storage_backends.errors import KeyInvalid
from moorage.storage_backends.facts import facts

__all__ = ["Crowds"]

_SETTLED: Final = 2.0
"""Seconds after which a directory counts as settled: the coarsest clock of a file system in use ticks once a second."""

_ENTRIES: Final = 50_000
"""Entries remembered in all directories together, about 400 bytes each."""


class _Remembered(NamedTuple):
    stamp: tuple[int, int]
    entries: list[ObjectInfo]


class Crowds:
    """The big directories of one store that hold nothing but objects. Threads may share it."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._known: OrderedDict[str, _Remembered] = OrderedDict()
        self._size = 0

    def unchanged(self, prefix: str) -> list[ObjectInfo] | None:
        """The objects directly under ``prefix`` in byte order, if they are remembered and still right."""
        known = self._known.get(prefix)
        if known is None:
            return None
        try:
            if _stamp(os.stat(self._base + prefix)) == known.stamp:
                return known.entries
        except FileNotFoundError:
            pass
        self._forget(prefix)
        return None

    def read(self, prefix: str) -> list[ObjectInfo] | None:
        """The objects directly under ``prefix`` in byte order, read now; None if it holds directories. Blocks."""
        try:
            before = os.stat(self._base + prefix)
            entries = _scan(self._base + prefix, prefix)
        except (FileNotFoundError, NotADirectoryError):
            return []
        if entries is not None and prefix != UPLOADS and before.st_mtime < time.time() - _SETTLED:
            self._remember(prefix, _Remembered(_stamp(before), entries))
        return entries

    def _remember(self, prefix: str, found: _Remembered) -> None:
        self._forget(prefix)
        self._known[prefix] = found
        self._size += len(found.entries)
        while self._size > _ENTRIES and self._known:
            self._forget(next(iter(self._known)))

    def _forget(self, prefix: str) -> None:
        known = self._known.pop(prefix, None)
        if known is not None:
            self._size -= len(known.entries)


def _stamp(directory: os.stat_result) -> tuple[int, int]:
    return directory.st_ino, directory.st_mtime_ns


def _scan(path: str, prefix: str) -> list[ObjectInfo] | None:
    found: list[ObjectInfo] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                return None
            if not entry.is_file(follow_symlinks=False):
                continue
            try:
                check_key(entry.name)
                found.append(facts(prefix + entry.name, entry.stat(follow_symlinks=False)))
            except (KeyInvalid, FileNotFoundError):
                continue  # not ours, or deleted since the directory was read
    found.sort(key=attrgetter("key"))
    return found
