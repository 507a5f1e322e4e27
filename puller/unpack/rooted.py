"""Directories below a root, found the way a chroot would find them.

Law: a path is walked one component at a time with O_NOFOLLOW. A link on the way is read and walked in its turn, from
the root where it is absolute; ``..`` stops at the root. So no name and no link leads out, whatever the layers contain
(rule U2). The tree belongs to one writer, so what was checked stays true.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from moorage.puller.errors import UnsafeLayer
from moorage.puller.unpack.decide import Path
from moorage.puller.unpack.limits import Limits

__all__ = ["Directory", "RootedTree", "is_directory", "remove_tree", "shown"]

_OPEN_TO_WALK = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_OPEN_TO_READ = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_RDONLY
_MAX_LINKS = 40


@dataclass(frozen=True, slots=True)
class Directory:
    """An open directory. ``path``: where it really is, links resolved."""

    descriptor: int
    path: Path


class RootedTree:
    """Opens directories below ``root``. A returned one stays open until the next call."""

    def __init__(self, root: str, limits: Limits) -> None:
        self.root = os.open(root, _OPEN_TO_READ)
        self._limits = limits
        self._opened: list[Directory] = []
        self._current: Path | None = None

    def close(self) -> None:
        """Lets go of every descriptor."""
        self._close_opened()
        os.close(self.root)

    def invalidate(self) -> None:
        """Must be called when a directory or link was removed: the next path is walked anew."""
        self._current = None

    def find(self, path: Path) -> Directory | None:
        """The directory at ``path``; None if there is none.

        Raises:
            UnsafeLayer: links do not end, or lead too deep.
        """
        return self._walk(path, None)

    def find_or_make(self, path: Path, on_made: Callable[[Path], None]) -> Directory:
        """The directory at ``path``; what is missing is made, and ``on_made`` told where.

        Raises:
            UnsafeLayer: something on the way is neither a directory nor a link to one.
        """
        found = self._walk(path, on_made)
        if found is None:
            raise UnsafeLayer(f"{shown(path)}: cannot be made")
        return found

    def open_real(self, path: Path) -> int | None:
        """A readable descriptor, to be closed, of the directory at exactly ``path`` without any link; None: none is."""
        descriptor = os.dup(self.root)
        for name in path:
            try:
                below = os.open(name, _OPEN_TO_READ, dir_fd=descriptor)
            except (FileNotFoundError, NotADirectoryError):
                return None
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor

    def _walk(self, path: Path, on_made: Callable[[Path], None] | None) -> Directory | None:
        if self._current != path:
            self._current = None
            self._close_opened()
            if not self._walk_anew(path, on_made):
                return None
            self._current = path
        return self._top()

    def _close_opened(self) -> None:
        while self._opened:
            os.close(self._opened.pop().descriptor)

    def _top(self) -> Directory:
        return self._opened[-1] if self._opened else Directory(self.root, ())

    def _walk_anew(self, path: Path, on_made: Callable[[Path], None] | None) -> bool:
        waiting, links = list(reversed(path)), 0
        while waiting:
            name = waiting.pop()
            if name == b"..":
                if self._opened:
                    os.close(self._opened.pop().descriptor)
                continue
            here = self._top()
            try:
                self._enter(here, name)
            except FileNotFoundError:
                if on_made is None:
                    return False
                os.mkdir(name, 0o700, dir_fd=here.descriptor)
                self._enter(here, name)
                on_made((*here.path, name))
            except OSError:
                target = _read_link(here, name)
                if target is None and on_made is None:
                    return False
                if target is None:
                    raise UnsafeLayer(f"{shown((*here.path, name))}: is not a directory") from None
                links += 1
                if links > _MAX_LINKS:
                    raise UnsafeLayer(f"{shown(path)}: more than {_MAX_LINKS} links on the way") from None
                if target.startswith(b"/"):
                    self._close_opened()
                waiting.extend(part for part in reversed(target.split(b"/")) if part not in (b"", b"."))
        return True

    def _enter(self, here: Directory, name: bytes) -> None:
        if len(here.path) >= self._limits.depth:
            raise UnsafeLayer(f"{shown(here.path)}: deeper than {self._limits.depth} directories")
        descriptor = os.open(name, _OPEN_TO_WALK, dir_fd=here.descriptor)
        self._opened.append(Directory(descriptor, (*here.path, name)))


def is_directory(parent: int, name: bytes) -> bool:
    """Whether ``name`` is a directory, and no link to one."""
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def remove_tree(parent: int, name: bytes, is_kept: Callable[[Path], bool], path: Path) -> bool:
    """Removes ``name``, whose real path is ``path``, and all below that is not kept; True if nothing is left of it."""
    if not is_directory(parent, name):
        if not is_kept(path):
            os.unlink(name, dir_fd=parent)
        return not is_kept(path)
    descriptor = os.open(name, _OPEN_TO_READ, dir_fd=parent)
    try:
        left = [child for child in map(os.fsencode, os.listdir(descriptor))
                if not remove_tree(descriptor, child, is_kept, (*path, child))]  # fmt: skip
    finally:
        os.close(descriptor)
    if not left and not is_kept(path):
        os.rmdir(name, dir_fd=parent)
        return True
    return False


def shown(path: Path) -> str:
    """A path as it may stand in a message."""
    return ascii("/".join(os.fsdecode(part) for part in path))[:300]


def _read_link(here: Directory, name: bytes) -> bytes | None:
    """The target, or None if it is no link."""
    try:
        return os.readlink(name, dir_fd=here.descriptor)
    except OSError:
        return None
