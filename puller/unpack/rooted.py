"""Directories below a root, found the way a chroot would find them.

Law: a path is walked one component at a time with O_NOFOLLOW. A link on the way is read and walked in its turn, from
the root where it is absolute; ``..`` stops at the root. So no name and no link leads out, whatever the layers contain
(rule U2). The tree belongs to one writer, so what was checked stays true. Where the file system takes two spellings for
one name, a name is only what it was made as; another spelling of it is refused (rule U14).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Protocol

from moorage.puller.errors import UnsafeLayer
from moorage.puller.unpack.decide import Path, is_reserved, shown
from moorage.puller.unpack.limits import Limits
from moorage.registry.oci.values import dataclass

__all__ = ["NOTHING_SPARED", "Directory", "RootedTree", "Spared", "is_directory", "remove_tree"]

_OPEN_TO_WALK = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_OPEN_TO_READ = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_RDONLY
_MAX_LINKS = 40
_PROBE = b".moorage-Probe"


@dataclass(frozen=True, slots=True)
class Directory:
    """An open directory. ``path``: where it really is, links resolved."""

    descriptor: int
    path: Path


class Spared(Protocol):
    """What must not be removed, by real path."""

    def __contains__(self, path: Path) -> bool: ...

    def is_cleared(self, path: Path) -> bool:
        """Whether everything at and below a directory is spared, so that it need not be looked at."""
        ...


class _NothingSpared:
    def __contains__(self, path: Path) -> bool:
        return False

    def is_cleared(self, path: Path) -> bool:
        """Nothing is."""
        return False


NOTHING_SPARED: Spared = _NothingSpared()


class RootedTree:
    """Opens directories below ``root``, which is empty. A returned one stays open until the next call."""

    def __init__(self, root: str, limits: Limits) -> None:
        self.root = os.open(root, _OPEN_TO_READ)
        self._limits = limits
        self._opened: list[Directory] = []
        self._current: Path | None = None
        self._folds = _folds_case(self.root)

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

    def open_each(self, paths: Iterable[Path]) -> Iterator[tuple[Path, int]]:
        """Readable descriptors of the directories at exactly these paths, without any link; others are left out.

        Each is valid until the next is asked for. Paths that share their beginnings are best given one after the other.
        """
        opened: list[tuple[bytes, int]] = []
        try:
            for path in paths:
                shared = 0
                while shared < min(len(opened), len(path)) and opened[shared][0] == path[shared]:
                    shared += 1
                while len(opened) > shared:
                    os.close(opened.pop()[1])
                with suppress(FileNotFoundError, NotADirectoryError):
                    for name in path[shared:]:
                        above = opened[-1][1] if opened else self.root
                        opened.append((name, os.open(name, _OPEN_TO_READ, dir_fd=above)))
                    yield path, opened[-1][1] if opened else self.root
        finally:
            for _, descriptor in opened:
                os.close(descriptor)

    def is_spelled(self, here: Directory, name: bytes) -> bool:
        """Whether what is found as ``name`` also has that name, and not another one that means the same here."""
        if not self._folds:
            return True
        descriptor = os.open(b".", _OPEN_TO_READ, dir_fd=here.descriptor)
        try:
            return name in map(os.fsencode, os.listdir(descriptor))
        finally:
            os.close(descriptor)

    def check_spelling(self, here: Directory, name: bytes) -> None:
        """Refuses a name that exists in another spelling.

        Raises:
            UnsafeLayer: it does.
        """
        if not self.is_spelled(here, name):
            raise UnsafeLayer(f"{shown((*here.path, name))}: differs from another name only in a way that is lost here")

    def _walk(self, path: Path, on_made: Callable[[Path], None] | None) -> Directory | None:
        if self._current != path:
            kept = self._keep_shared(path)
            self._current = None
            if not self._walk_on(path[kept:], on_made):
                return None
            self._current = path
        return self._top()

    def _keep_shared(self, path: Path) -> int:
        """Closes what is not on the way to ``path``; returns how many of its components need no walk.

        Archives list a directory after its neighbours, so most of the way is open already. It is the way only if no
        link was followed: then what is open is the path that was asked for, component by component.
        """
        shared = 0
        if self._current is not None and self._top().path == self._current:
            while shared < min(len(path), len(self._current)) and path[shared] == self._current[shared]:
                shared += 1
        self._close_opened(down_to=shared)
        return shared

    def _close_opened(self, *, down_to: int = 0) -> None:
        while len(self._opened) > down_to:
            os.close(self._opened.pop().descriptor)

    def _top(self) -> Directory:
        return self._opened[-1] if self._opened else Directory(self.root, ())

    def _walk_on(self, path: Path, on_made: Callable[[Path], None] | None) -> bool:
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
                self._make(here, name, on_made)
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

    def _make(self, here: Directory, name: bytes, on_made: Callable[[Path], None]) -> None:
        if is_reserved(name):  # a link's target may name what no entry can
            raise UnsafeLayer(f"{shown((*here.path, name))}: a whiteout has no children")
        os.mkdir(name, 0o700, dir_fd=here.descriptor)
        self._enter(here, name)
        on_made((*here.path, name))

    def _enter(self, here: Directory, name: bytes) -> None:
        if len(here.path) >= self._limits.depth:
            raise UnsafeLayer(f"{shown(here.path)}: deeper than {self._limits.depth} directories")
        descriptor = os.open(name, _OPEN_TO_WALK, dir_fd=here.descriptor)
        self._opened.append(Directory(descriptor, (*here.path, name)))
        self.check_spelling(here, name)


def is_directory(parent: int, name: bytes) -> bool:
    """Whether ``name`` is a directory, and no link to one."""
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def remove_tree(parent: int, name: bytes, spared: Spared, path: Path) -> bool:
    """Removes ``name``, whose real path is ``path``, and all below that is not spared; True if nothing is left."""
    if not is_directory(parent, name):
        if path not in spared:
            os.unlink(name, dir_fd=parent)
        return path not in spared
    if not spared.is_cleared(path):
        descriptor = os.open(name, _OPEN_TO_READ, dir_fd=parent)
        try:
            for child in map(os.fsencode, os.listdir(descriptor)):
                remove_tree(descriptor, child, spared, (*path, child))
        finally:
            os.close(descriptor)
    return path not in spared and _remove_if_empty(parent, name)


def _remove_if_empty(parent: int, name: bytes) -> bool:
    """A directory stays for the sake of what was spared in it."""
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as exc:
        if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _read_link(here: Directory, name: bytes) -> bytes | None:
    """The target, or None if it is no link."""
    try:
        return os.readlink(name, dir_fd=here.descriptor)
    except OSError:
        return None


def _folds_case(root: int) -> bool:
    """Whether an empty directory takes two spellings for one name: tried, because mounts and directories differ."""
    os.close(os.open(_PROBE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=root))
    try:
        os.stat(_PROBE.lower(), dir_fd=root)
    except FileNotFoundError:
        return False
    finally:
        os.unlink(_PROBE, dir_fd=root)
    return True
