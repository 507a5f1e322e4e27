"""The only code that changes a root file system being built.

Law: every operation is relative to a directory that ``rooted`` opened inside the root; the last component is never
followed, and nothing is ever opened through an existing name: what exists is removed first (rules U2 to U4).
Directories get their attributes when everything is in them; until then they belong to the unpacker alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable

from moorage.puller.entries import Entry, Kind
from moorage.puller.errors import BrokenLayer, UnsafeLayer
from moorage.puller.unpack.decide import Path, stays
from moorage.puller.unpack.limits import Limits
from moorage.puller.unpack.rooted import Directory, RootedTree, is_directory, remove_tree, shown
from moorage.puller.unpack.written import Written

__all__ = ["Destination"]

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_IMPLICIT = Entry(b"", Kind.DIRECTORY, mode=0o755)
"""A directory that no entry describes: root's and open to read, as containerd makes it."""

_XATTR_REFUSALS = frozenset({errno.ENOTSUP, errno.EPERM})


class Destination:
    """An empty directory that becomes a root file system. Close it after use.

    ``skipped``: what could not be made with our rights, and why.
    """

    def __init__(self, root: str, *, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._tree = RootedTree(root, self._limits)
        self._is_root = os.geteuid() == 0
        self._directories: dict[Path, Entry] = {}
        self.skipped: list[str] = []

    def close(self) -> None:
        """Lets go of every descriptor."""
        self._tree.close()

    def put(self, path: Path, entry: Entry, data: Iterable[memoryview], written: Written) -> None:
        """Makes what the entry describes, replacing what exists.

        Raises:
            UnsafeLayer: a parent is no directory, or its links do not end.
            OSError: the file system refuses.
        """
        if not path:
            self._directories[()] = entry
            return
        parent, name = self._tree.find_or_make(path[:-1], self._describe_implicit), path[-1]
        written.add((*parent.path, name))
        match entry.kind:
            case Kind.DIRECTORY:
                self._put_directory(parent, name, entry)
            case Kind.FILE:
                self._put_file(parent, name, entry, data)
            case Kind.SYMLINK:
                self._clear(parent, name)
                os.symlink(entry.link, name, dir_fd=parent.descriptor)
                self._dress_name(parent, name, entry)
            case _:
                self._clear(parent, name)
                self._put_node(parent, name, entry)

    def link(self, path: Path, target: Path, written: Written) -> None:
        """Makes ``path`` another name of the file at ``target``, which is not followed if it is a symlink.

        Raises:
            UnsafeLayer: the target is a directory.
            BrokenLayer: the target does not exist.
        """
        parent, name = self._tree.find_or_make(path[:-1], self._describe_implicit), path[-1]
        descriptor = os.dup(parent.descriptor)  # looking for the target closes the parent
        try:
            self._link(Directory(descriptor, parent.path), name, target)
        except FileNotFoundError:
            raise BrokenLayer(f"{shown(path)}: a hard link to {shown(target)}, which does not exist") from None
        finally:
            os.close(descriptor)
        written.add((*parent.path, name))

    def _link(self, parent: Directory, name: bytes, target: Path) -> None:
        source = self._tree.find(target[:-1])
        if source is None or (*source.path, target[-1]) == (*parent.path, name):
            raise FileNotFoundError
        if is_directory(source.descriptor, target[-1]):
            raise UnsafeLayer(f"{shown(target)}: a hard link to a directory")
        self._clear(parent, name)
        os.link(target[-1], name, src_dir_fd=source.descriptor, dst_dir_fd=parent.descriptor, follow_symlinks=False)

    def hide(self, path: Path, written: Written) -> None:
        """Removes what lower layers have at ``path``; what this layer wrote stays."""
        parent = self._tree.find(path[:-1])
        if parent is not None:
            with contextlib.suppress(FileNotFoundError):  # a whiteout of what is not there is no mistake
                remove_tree(parent.descriptor, path[-1], written.__contains__, (*parent.path, path[-1]))
            self._tree.invalidate()

    def hide_children(self, path: Path, written: Written) -> None:
        """Removes what lower layers have below ``path``; what this layer wrote stays."""
        found = self._tree.find(path)
        if found is None or not written.mark_opaque(found.path):
            return
        for name in map(os.fsencode, self._list(found.path)):
            remove_tree(found.descriptor, name, written.__contains__, (*found.path, name))
        self._tree.invalidate()

    def finish(self) -> None:
        """Gives every directory its attributes, deepest first: from now on the tree is what the layers say."""
        for path, entry in sorted(self._directories.items(), key=lambda item: len(item[0]), reverse=True):
            descriptor = self._tree.open_real(path)
            if descriptor is not None:
                try:
                    self._dress(descriptor, entry)
                finally:
                    os.close(descriptor)
        if () not in self._directories:
            os.fchmod(self._tree.root, _IMPLICIT.mode)

    def remove_all(self) -> None:
        """Empties the root, following nothing."""
        self._tree.invalidate()
        for name in map(os.fsencode, os.listdir(self._tree.root)):
            remove_tree(self._tree.root, name, lambda _: False, (name,))

    def _describe_implicit(self, path: Path) -> None:
        self._directories[path] = _IMPLICIT

    def _clear(self, parent: Directory, name: bytes) -> None:
        """Removes what exists under the name, if anything does."""
        with contextlib.suppress(FileNotFoundError):
            remove_tree(parent.descriptor, name, lambda _: False, (*parent.path, name))
        self._tree.invalidate()

    def _list(self, path: Path) -> list[str]:
        descriptor = self._tree.open_real(path)
        if descriptor is None:
            return []
        try:
            return os.listdir(descriptor)
        finally:
            os.close(descriptor)

    def _put_directory(self, parent: Directory, name: bytes, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent.descriptor)
        except FileExistsError:
            if not stays(entry, existing_is_directory=is_directory(parent.descriptor, name)):
                self._clear(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent.descriptor)
        self._directories[(*parent.path, name)] = entry

    def _put_file(self, parent: Directory, name: bytes, entry: Entry, data: Iterable[memoryview]) -> None:
        try:
            descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=parent.descriptor)
        except FileExistsError:
            self._clear(parent, name)
            descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=parent.descriptor)
        try:
            for piece in data:
                while piece:
                    piece = piece[os.write(descriptor, piece) :]
            self._dress(descriptor, entry)
        finally:
            os.close(descriptor)

    def _put_node(self, parent: Directory, name: bytes, entry: Entry) -> None:
        """A FIFO or device; devices need rights that not even every root has."""
        try:
            if entry.kind is Kind.FIFO:
                os.mkfifo(name, entry.mode, dir_fd=parent.descriptor)
            else:
                kind = stat.S_IFCHR if entry.kind is Kind.CHARACTER_DEVICE else stat.S_IFBLK
                os.mknod(name, kind | entry.mode, os.makedev(*entry.device), dir_fd=parent.descriptor)
        except PermissionError:
            self.skipped.append(f"{shown((*parent.path, name))}: no right to make a device")
            return
        self._dress_name(parent, name, entry)

    def _dress(self, descriptor: int, entry: Entry) -> None:
        """Owner, attributes, mode, times, in this order: chown clears setuid bits and capabilities."""
        if self._is_root:
            os.fchown(descriptor, entry.uid, entry.gid)
        self._set_xattrs(descriptor, entry)
        os.fchmod(descriptor, entry.mode)
        os.utime(descriptor, ns=(entry.mtime, entry.mtime))

    def _dress_name(self, parent: Directory, name: bytes, entry: Entry) -> None:
        """The same for what cannot be opened: links and nodes, which we have just made."""
        if self._is_root:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent.descriptor, follow_symlinks=False)
        if entry.kind is not Kind.SYMLINK:
            os.chmod(name, entry.mode, dir_fd=parent.descriptor)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent.descriptor, follow_symlinks=False)

    def _set_xattrs(self, descriptor: int, entry: Entry) -> None:
        if len(entry.xattrs) > self._limits.xattrs or sum(map(len, entry.xattrs.values())) > self._limits.xattr_size:
            raise UnsafeLayer(f"{shown((entry.name,))}: too many extended attributes")
        for key, value in entry.xattrs.items():
            if not _is_wanted(key, is_root=self._is_root):
                continue
            try:
                os.setxattr(descriptor, key, value)
            except OSError as exc:
                if exc.errno not in _XATTR_REFUSALS:
                    raise
                self.skipped.append(f"{shown((entry.name,))}: attribute {shown((key,))}: {exc.strerror}")


def _is_wanted(key: bytes, *, is_root: bool) -> bool:
    """Attributes that belong to the file; others are this machine's business: labels, ACLs, overlay's own (U13)."""
    if key == b"security.capability":
        return is_root
    return key.startswith(b"user.") and not key.startswith(b"user.overlay.")
