"""Listing a directory tree in the byte order of whole keys.

Law: a directory sorts as its name and a ``/``, because that is what follows in its keys: ``a-b`` < ``a.b`` < ``a/b``.
What no key may be called is not ours and is not shown; nor is a directory in which no file lies.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, Final, Protocol

from moorage.storage_backends.base import CommonPrefix, ObjectInfo, check_key
from moorage.storage_backends.crowds import Crowds
from moorage.storage_backends.errors import KeyInvalid
from moorage.storage_backends.facts import facts
from moorage.storage_backends.os_errors import storage_errors

__all__ = ["LOST_AND_FOUND", "PRIVATE", "Run", "Walk", "holds_a_file"]

PRIVATE: Final = ".moorage/"
"""What a store keeps for itself under its root."""

LOST_AND_FOUND: Final = "lost+found"
"""What a file system keeps for itself in its own root, where nobody but root may look."""

_HIDDEN: Final = frozenset({PRIVATE[:-1], LOST_AND_FOUND})

_SMALL: Final = 512
"""Entries of a directory that are read on the event loop; about 100 µs of work."""

_STRETCH: Final = 256
"""Entries after which a listing lets others run."""


class Run(Protocol):
    """Runs blocking work in a thread of the store."""

    def __call__(self, work: Callable[..., Any], /, *arguments: object) -> asyncio.Future[Any]:
        """The future of ``work(*arguments)``."""


class Walk:
    """A listing under way: an asynchronous iterator that holds nothing open, so it may be dropped at any point."""

    __slots__ = ("_after", "_base", "_begun", "_crowd", "_crowds", "_delimited", "_levels", "_prefix", "_run", "_shown")

    def __init__(self, base: str, prefix: str, after: str, *, delimited: bool, run: Run, crowds: Crowds) -> None:
        self._base, self._prefix, self._after = base, prefix, after
        self._delimited, self._run, self._crowds = delimited, run, crowds
        # The directories that we are in, each as its prefix and what is still to come: names, or objects as they are.
        self._levels: list[tuple[str, Iterator[str | ObjectInfo]]] = []
        # A directory too big to be read here, as its prefix and what its names have to begin with.
        self._crowd: tuple[str, str] | None = None
        self._begun = False
        self._shown = 0

    def __aiter__(self) -> Walk:
        return self

    async def __anext__(self) -> ObjectInfo | CommonPrefix:
        with storage_errors:
            while (found := self._advance()) is None:
                if self._crowd is None:
                    raise StopAsyncIteration
                await self._enter_crowd(*self._crowd)
            self._shown += 1
            if self._shown % _STRETCH == 0:
                await asyncio.sleep(0)
            return found

    def _advance(self) -> ObjectInfo | CommonPrefix | None:
        """The next entry; None at the end, and before a directory that is too big to be read here."""
        if not self._begun:
            self._begun = True
            directory, slash, start = self._prefix.rpartition("/")
            self._enter(directory + slash, start)
        while self._levels and self._crowd is None:
            parent, names = self._levels[-1]
            name = next(names, None)
            if name is None:
                self._levels.pop()
            elif isinstance(name, ObjectInfo):
                return name
            elif (found := self._visit(parent + name)) is not None:
                return found
        return None

    def _visit(self, key: str) -> ObjectInfo | CommonPrefix | None:
        """What stands in the listing for ``key``; a directory that is not folded is entered instead."""
        if not key.endswith("/"):
            return self._file(key) if key > self._after else None
        if self._delimited:
            return CommonPrefix(key) if key > self._after and holds_a_file(self._base + key) else None
        if key > self._after or self._after.startswith(key):
            self._enter(key, "")
        return None

    def _file(self, key: str) -> ObjectInfo | None:
        try:
            return facts(key, os.stat(self._base + key, follow_symlinks=False))
        except FileNotFoundError:
            return None  # deleted since its directory was read

    def _enter(self, prefix: str, start: str) -> None:
        known = self._crowds.unchanged(prefix)
        if known is not None:
            self._levels.append((prefix, self._rest_of(known, prefix + start)))
            return
        names = _read_names(self._base, prefix, start, _SMALL)
        if names is None:
            self._crowd = (prefix, start)
        elif names:
            self._levels.append((prefix, iter(names)))

    async def _enter_crowd(self, prefix: str, start: str) -> None:
        objects: list[ObjectInfo] | None = await self._run(self._crowds.read, prefix)
        if objects is None:  # there are directories among them
            names = await self._run(_read_names, self._base, prefix, start, None)
            self._levels.append((prefix, iter(names)))
        else:
            self._levels.append((prefix, self._rest_of(objects, prefix + start)))
        self._crowd = None

    def _rest_of(self, objects: list[ObjectInfo], beginning: str) -> Iterator[ObjectInfo]:
        """Those that begin with ``beginning`` and are still to be shown."""
        first = bisect.bisect_right(objects, self._after, key=attrgetter("key"))
        return (found for found in itertools.islice(objects, first, None) if found.key.startswith(beginning))


def _read_names(base: str, prefix: str, start: str, limit: int | None) -> list[str] | None:
    """The names in a directory that begin with ``start``, sorted as keys are; None if it has more than ``limit``."""
    try:
        with os.scandir(base + prefix) as entries:
            found = list(itertools.islice(entries, limit))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return _names(found, prefix, start) if len(found) != limit else None


def _names(entries: Iterable[os.DirEntry[str]], prefix: str, start: str) -> list[str]:
    """The names that begin with ``start``; those of directories end with ``/``."""
    names = []
    for entry in entries:
        name = entry.name
        if not name.startswith(start) or not _is_ours(prefix, name):
            continue
        if entry.is_dir(follow_symlinks=False):
            names.append(f"{name}/")
        elif entry.is_file(follow_symlinks=False):
            names.append(name)
    names.sort()
    return names


def _is_ours(prefix: str, name: str) -> bool:
    try:
        check_key(name)
    except KeyInvalid:
        return False
    return bool(prefix) or name not in _HIDDEN


def holds_a_file(directory: str) -> bool:
    """Whether any file lies below, looking into the first directory first: where files are, one is near."""
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    return True
                if entry.is_dir(follow_symlinks=False) and holds_a_file(entry.path):
                    return True
    except (FileNotFoundError, NotADirectoryError):
        pass
    return False
