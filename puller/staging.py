"""What is being made: files and directories below ``<root>/staging/``, worthless once their maker is dead.

Law: whoever makes one holds a flock on it until it was moved to its place or removed, and a kill lets go of the lock.
So what can be locked is dead, and ``sweep`` removes it. Making and locking are two steps; a sweep may come between
them, therefore a maker looks again once it holds the lock, and makes another if its own is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

__all__ = ["StagedFile", "remove_tree", "staging_directory", "sweep", "sync_directory", "write_all"]

_FOLDER = "staging"
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_ANY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class StagedFile:
    """A file being written. Safe to discard while another thread still writes."""

    def __init__(self, root: str) -> None:
        self._lock = threading.Lock()
        while True:
            self.path = _new_path(root)
            self._file: BinaryIO = open(self.path, "xb", buffering=0)  # noqa: SIM115 (appear or discard closes it)
            if _claim(self._file.fileno(), self.path):
                return
            self._file.close()

    def write(self, data: bytes) -> None:
        """Adds bytes."""
        with self._lock:
            write_all(self._file, data)

    def sync(self) -> None:
        """Brings what was written to the disk."""
        with self._lock:
            os.fsync(self._file.fileno())

    def appear(self, path: str) -> None:
        """Moves the file to ``path``, in place of what is there."""
        with self._lock:
            os.replace(self.path, path)
            self._file.close()

    def discard(self) -> None:
        """Drops the file, unless it has appeared."""
        with self._lock:
            if not self._file.closed:
                os.unlink(self.path)
                self._file.close()


@contextmanager
def staging_directory(root: str) -> Iterator[str]:
    """An empty directory (mode 0700) for one maker; what is still in it at the end of the block is removed."""
    path, descriptor = _make_directory(root)
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            remove_tree(path)
        os.close(descriptor)


def sweep(root: str) -> int:
    """Removes what dead makers left; returns how many things that were."""
    folder = os.path.join(root, _FOLDER)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return 0
    return sum(_sweep_one(os.path.join(folder, name)) for name in names)


def remove_tree(path: str) -> None:
    """Removes a directory and all below it, also where the modes forbid their owner to read or change it.

    Raises:
        FileNotFoundError: there is none.
    """
    try:
        descriptor = _open_folder(path)
    except NotADirectoryError:
        os.unlink(path)
        return
    try:
        _empty(descriptor)
    finally:
        os.close(descriptor)
    os.rmdir(path)


def is_writable(folder: str) -> bool:
    """Whether we may change what is in the directory: its mode allows it, and its file system is not read-only."""
    return os.access(folder, os.W_OK | os.X_OK)


def write_all(file: BinaryIO, data: bytes) -> None:
    """Writes all of ``data`` to an unbuffered file, which may take it in parts."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def sync_directory(path: str) -> None:
    """Brings the names in a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new_path(root: str) -> str:
    folder = os.path.join(root, _FOLDER)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return os.path.join(folder, os.urandom(8).hex())


def _make_directory(root: str) -> tuple[str, int]:
    while True:
        path = _new_path(root)
        os.mkdir(path, 0o700)
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, _OPEN_FOLDER)
            if _claim(descriptor, path):
                return path, descriptor
            os.close(descriptor)


def _claim(descriptor: int, path: str) -> bool:
    """Locks what was just opened; False if a sweep has it, or had it and removed it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except (BlockingIOError, FileNotFoundError):
        return False


def _sweep_one(path: str) -> bool:
    try:
        descriptor = os.open(path, _OPEN_ANY)
    except FileNotFoundError:
        return False
    try:
        if not _claim(descriptor, path):
            return False
        remove_tree(path)
    finally:
        os.close(descriptor)
    return True


def _open_folder(name: str, parent: int | None = None) -> int:
    try:
        return os.open(name, _OPEN_FOLDER, dir_fd=parent)
    except PermissionError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, _OPEN_FOLDER, dir_fd=parent)


def _empty(descriptor: int) -> None:
    """Removes all below an open directory."""
    if os.geteuid() != 0:
        os.fchmod(descriptor, 0o700)
    with os.scandir(descriptor) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_folder in entries:
        if not is_folder:
            os.unlink(name, dir_fd=descriptor)
            continue
        below = _open_folder(name, descriptor)
        try:
            _empty(below)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=descriptor)
