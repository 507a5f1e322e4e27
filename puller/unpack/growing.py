"""The private directory in which a tree grows, beside the place where it will appear.

Law: its maker holds a flock on it, which a kill lets go of. So what can be locked is dead, and the next unpacking
beside it removes it. Making and locking are two steps; if a sweep came between them, another is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from moorage.puller.staging import remove_tree

__all__ = ["growing_beside"]

_PREFIX = ".moorage-unpack-"
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def growing_beside(target: str) -> Iterator[str]:
    """An empty directory (mode 0700) beside ``target``, to be renamed; what is still there at the end is removed."""
    parent = os.path.dirname(target)
    os.makedirs(parent, exist_ok=True)
    _sweep(parent)
    path, descriptor = _make(parent)
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            remove_tree(path)
        os.close(descriptor)


def _make(parent: str) -> tuple[str, int]:
    while True:
        path = os.path.join(parent, f"{_PREFIX}{os.urandom(8).hex()}")
        os.mkdir(path, 0o700)
        descriptor = _claim(path)
        if descriptor is not None:
            return path, descriptor


def _sweep(parent: str) -> None:
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if name.startswith(_PREFIX) and (descriptor := _claim(path)) is not None:
            try:
                remove_tree(path)
            finally:
                os.close(descriptor)


def _claim(path: str) -> int | None:
    """A descriptor that holds the lock; None if another has it, had it and removed the directory, or it is none."""
    try:
        descriptor = os.open(path, _OPEN_FOLDER)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
