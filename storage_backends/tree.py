"""Files under a root: how one is made, replaced and removed, each at once and whole.

Law: nothing here is durable when it returns except bytes staged with ``durable``; each change notes the directories it
``touched`` for whoever makes them so. Every function may block on the disk for a moment and belongs to no event loop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from moorage.storage_backends.durability import Disk
from moorage.storage_backends.errors import KeyNotFound, StorageUnavailable
from moorage.storage_backends.facts import version_of
from moorage.storage_backends.walk import PRIVATE, holds_a_file

__all__ = ["Tree", "stamp"]

_ATTEMPTS: Final = 1000
"""How often a directory is made again because a deleter, seeing it empty, removed it."""

_KEPT_LEVELS: Final = 2
"""Directories this near to the root are never removed: every write would need them again."""

T = TypeVar("T")


class Tree:
    """The directory tree of one store. ``base``: its root with a ``/`` behind."""

    def __init__(self, root: str, disk: Disk) -> None:
        self.root, self.base = root, f"{root}/"
        self.private = f"{root}/{PRIVATE}"
        self._disk = disk

    def status(self, key: str) -> os.stat_result | None:
        """What lies at ``key``, None if that is no file."""
        try:
            status = os.stat(self.base + key, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def version(self, key: str) -> str | None:
        """The version of the object at ``key``, None if there is none."""
        status = self.status(key)
        return None if status is None else version_of(status)

    def create(self, key: str, data: bytes, touched: set[str]) -> str:
        """Makes a new file in its place, visible from its first byte; so ``data`` is empty, or nobody minds.

        Raises:
            FileExistsError: something lies there.
        """
        fd = self._in_directory(key, touched, lambda path: _create(path))
        try:
            _write(fd, data)
            return stamp(fd)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def staged(self, data: bytes, *, durable: bool) -> Iterator[tuple[str, str]]:
        """A temporary file with ``data``, as its path and the version that it will be; gone when the block ends."""
        path = self.temporary()
        fd = _create(path)
        try:
            try:
                _write(fd, data)
                version = stamp(fd)
                if durable:
                    self._disk.sync_file(fd)
            finally:
                os.close(fd)
            yield path, version
        finally:
            with contextlib.suppress(FileNotFoundError):  # it was renamed to where it belongs
                os.unlink(path)

    @contextlib.contextmanager
    def linked_aside(self, key: str) -> Iterator[str]:
        """A second, temporary name of the file at ``key``; gone when the block ends.

        Raises:
            KeyNotFound: nothing lies there.
        """
        path = self.temporary()
        try:
            try:
                os.link(self.base + key, path, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                raise KeyNotFound(key) from None
            yield path
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def temporary(self) -> str:
        """A path that is free."""
        return f"{self.private}tmp/{secrets.token_hex(12)}"

    def link(self, source: str, key: str, touched: set[str]) -> None:
        """Shows the file at path ``source`` at ``key`` too.

        Raises:
            FileExistsError: something lies there.
        """
        self._in_directory(key, touched, lambda path: os.link(source, path), source=source)

    def move(self, source: str, key: str, touched: set[str]) -> None:
        """Moves the file at path ``source`` to ``key``, over whatever lies there.

        Raises:
            FileNotFoundError: nothing is at ``source``.
        """
        self._in_directory(key, touched, lambda path: os.rename(source, path), source=source)

    def remove(self, key: str, touched: set[str]) -> None:
        """Removes a file, if it is there, and the directories that are empty without it."""
        path = self.base + key
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            return  # an object lies above, so nothing can ever have been here
        # Also where nothing was: whoever removed it may not have made that durable, and we are about to say "gone".
        touched.add(self._prune(os.path.dirname(path), levels=key.count("/")))

    def _prune(self, directory: str, *, levels: int) -> str:
        """Removes ``directory`` and those above it while they are empty; the first that stays."""
        for _ in range(levels - _KEPT_LEVELS):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass
            except OSError:
                break
            directory = os.path.dirname(directory)
        return directory

    def _in_directory(self, key: str, touched: set[str], action: Callable[[str], T], *, source: str | None = None) -> T:
        """Does ``action`` with the path of ``key``, making its directory when there is none."""
        path = self.base + key
        directory = os.path.dirname(path)
        try:
            for _ in range(_ATTEMPTS):
                try:
                    done = action(path)
                except (FileExistsError, IsADirectoryError):
                    if not os.path.isdir(path):
                        raise
                    _clear(path)
                except FileNotFoundError:
                    if source is not None:
                        os.lstat(source)  # raises what is: that it is gone, or that the disk fails
                    _make_directory(directory, touched)
                else:
                    touched.add(directory)
                    return done
        except OSError:
            self._prune(directory, levels=key.count("/"))  # made for nothing; on a full disk they would add up
            raise
        raise StorageUnavailable("the directory vanishes as often as it is made")


def _make_directory(directory: str, touched: set[str]) -> None:
    """Makes what is missing of the path ``directory``, unless somebody removes it meanwhile."""
    parent = os.path.dirname(directory)
    for _ in range(2):
        try:
            os.mkdir(directory, 0o700)
        except FileNotFoundError:
            _make_directory(parent, touched)
        except FileExistsError:
            return
        else:
            touched.add(parent)
            return


def _clear(directory: str) -> None:
    """Removes a directory in which nothing lies: its objects were deleted, now its name is wanted for one.

    Raises:
        IsADirectoryError: something lies in it.
    """
    if holds_a_file(directory):
        raise IsADirectoryError(errno.EISDIR, "the key is a directory of another")
    for path, _, _ in os.walk(directory, topdown=False):
        with contextlib.suppress(FileNotFoundError):  # another writer wants the name too
            os.rmdir(path)


def stamp(fd: int) -> str:
    """Gives a file the present time to the nanosecond, and returns the version that it has by that.

    The kernel's own clock ticks every few milliseconds, and inodes are used again at once: without this a file that
    replaces another within a tick could have its version.
    """
    now = time.time_ns()
    os.utime(fd, ns=(now, now))
    return version_of(os.fstat(fd))


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
