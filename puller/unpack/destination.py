"""The only code that changes a root file system being built.

Law: every operation is relative to a directory that ``rooted`` opened inside the root; the last component is never
followed, and nothing is ever opened through an existing name: what exists is removed first (rules U2 to U4).
Directories get their attributes when everything is in them; until then they belong to the unpacker alone.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator

from moorage.puller.entries import Entry, Kind
from moorage.puller.errors import BrokenLayer, UnsafeLayer
from moorage.puller.pieces import PIECE
from moorage.puller.unpack.attributes import Attributes
from moorage.puller.unpack.decide import OPAQUE, WHITEOUT, Path, shown, stays
from moorage.puller.unpack.limits import Limits
from moorage.puller.unpack.notes import Note, Notes, write_notes
from moorage.puller.unpack.owners import OwnerMode
from moorage.puller.unpack.remarks import Remarks
from moorage.puller.unpack.rooted import NOTHING_SPARED, Directory, RootedTree, is_directory, remove_tree
from moorage.puller.unpack.written import Written

__all__ = ["Destination"]

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_IMPLICIT = Entry(b"", Kind.DIRECTORY, mode=0o755)
"""A directory that no entry describes: root's, open to read, and older than everything (rule 7)."""


class Destination:
    """An empty directory that becomes a root file system. Close it after use.

    Args:
        is_alone: it becomes the tree of a single layer; what only makes sense over lower layers is noted (``notes``).
    """

    def __init__(
        self, root: str, *, limits: Limits | None = None, owners: OwnerMode | None = None, is_alone: bool = False
    ) -> None:
        self._limits = limits or Limits()
        self._tree = RootedTree(root, self._limits)
        self._remarks = Remarks()
        self._notes = Notes() if is_alone else None
        self._attributes = Attributes(self._tree.root, owners, self._limits, self._remarks, is_alone=is_alone)
        self._directories: dict[Path, Entry] = {}
        self._implied = 0

    @property
    def skipped(self) -> tuple[str, ...]:
        """What could not be made with our rights, and why; one line for each cause."""
        return self._remarks.lines()

    def close(self) -> None:
        """Lets go of every descriptor."""
        self._tree.close()

    def put(self, path: Path, entry: Entry, data: Iterable[memoryview], written: Written) -> None:
        """Makes what the entry describes, replacing what exists.

        Raises:
            UnsafeLayer: a parent is no directory, or its links do not end.
            BrokenLayer: it has attributes that cannot be.
            OSError: the file system refuses.
        """
        if not path:
            self._announce((), entry, written)
            self._directories[()] = entry
            return
        parent, name = self._tree.find_or_make(path[:-1], self._describe_implicit), path[-1]
        self._announce((*parent.path, name), entry, written)
        match entry.kind:
            case Kind.DIRECTORY:
                self._put_directory(parent, name, entry)
            case Kind.FILE:
                self._put_file(parent, name, entry, data)
            case Kind.SYMLINK:
                self._put_symlink(parent, name, entry)
            case _:
                self._put_node(parent, name, entry)

    def link(self, path: Path, target: Path, written: Written) -> None:
        """Makes ``path`` another name of the file at ``target``, which is not followed if it is a symlink.

        Raises:
            UnsafeLayer: the target is a directory.
            BrokenLayer: the target does not exist, and cannot be in a lower layer.
        """
        parent, name = self._tree.find_or_make(path[:-1], self._describe_implicit), path[-1]
        # Looking for the target closes the parent.
        here = Directory(os.dup(parent.descriptor), parent.path)
        is_made = False
        try:
            with contextlib.suppress(FileNotFoundError):  # its target went with what stood in its place
                is_made = self._link(here, name, target)
        finally:
            os.close(here.descriptor)
        if not is_made:
            raise BrokenLayer(f"{shown(path)}: a hard link to {shown(target)}, which does not exist")
        written.add((*parent.path, name))

    def hide(self, path: Path, written: Written) -> None:
        """Removes what lower layers have at ``path``; what this layer wrote stays."""
        parent, name = self._tree.find(path[:-1]), path[-1]
        if parent is None or written.is_cleared(parent.path):
            return
        real = (*parent.path, name)
        with contextlib.suppress(FileNotFoundError):  # a whiteout of what is not there is no mistake (rule 4)
            if self._tree.is_spelled(parent, name):
                remove_tree(parent.descriptor, name, written, real)
        written.mark_cleared(real)
        self._tree.invalidate()

    def hide_children(self, path: Path, written: Written) -> None:
        """Removes what lower layers have below ``path``; what this layer wrote stays."""
        found = self._tree.find(path)
        if found is None or written.is_cleared(found.path):
            return
        for real, descriptor in self._tree.open_each([found.path]):
            for name in map(os.fsencode, os.listdir(descriptor)):
                remove_tree(descriptor, name, written, (*real, name))
        written.mark_cleared(found.path)
        self._tree.invalidate()

    def finish(self) -> None:
        """Gives every directory its attributes, children before parents: now the tree is what the layers say."""
        self._directories.setdefault((), _IMPLICIT)
        if self._notes is not None:
            write_notes(self._tree.root, self._collect_notes(self._notes))
        for path, descriptor in self._tree.open_each(sorted(self._directories, reverse=True)):
            self._attributes.set_on(descriptor, self._directories[path], path)

    def _announce(self, path: Path, entry: Entry, written: Written) -> None:
        """The layer writes ``path``."""
        written.add(path)
        if self._notes is not None:
            self._notes.forget(path)
            if self._attributes.owners is OwnerMode.SQUASH and (entry.uid or entry.gid):
                self._notes.add(path, "owner", uid=entry.uid, gid=entry.gid)

    def _describe_implicit(self, path: Path) -> None:
        self._implied += 1
        if self._implied > self._limits.entries:  # a name of 4 KiB implies hundreds
            raise UnsafeLayer(f"more than {self._limits.entries} directories that no entry describes")
        self._directories[path] = _IMPLICIT
        if self._notes is not None:
            self._notes.forget(path)

    def _clear(self, parent: Directory, name: bytes) -> None:
        """Removes what exists under the name, if anything does."""
        try:
            self._tree.check_spelling(parent, name)
            remove_tree(parent.descriptor, name, NOTHING_SPARED, (*parent.path, name))
        except FileNotFoundError:
            return
        self._tree.invalidate()

    def _put_directory(self, parent: Directory, name: bytes, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent.descriptor)
        except FileExistsError:
            self._tree.check_spelling(parent, name)
            if not stays(entry, existing_is_directory=is_directory(parent.descriptor, name)):
                self._clear(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent.descriptor)
        self._directories[(*parent.path, name)] = entry

    def _put_file(self, parent: Directory, name: bytes, entry: Entry, data: Iterable[memoryview]) -> None:
        descriptor = self._create(parent, name)
        try:
            if entry.extents is not None:
                _write_sparse(descriptor, entry, data)
            elif entry.size:
                for piece in data:
                    while piece:
                        piece = piece[os.write(descriptor, piece[:PIECE]) :]
            self._attributes.set_on(descriptor, entry, (*parent.path, name))
        finally:
            os.close(descriptor)

    def _create(self, parent: Directory, name: bytes) -> int:
        try:
            return os.open(name, _NEW_FILE, 0o600, dir_fd=parent.descriptor)
        except FileExistsError:
            self._clear(parent, name)
            return os.open(name, _NEW_FILE, 0o600, dir_fd=parent.descriptor)

    def _put_symlink(self, parent: Directory, name: bytes, entry: Entry) -> None:
        try:
            os.symlink(entry.link, name, dir_fd=parent.descriptor)
        except FileExistsError:
            self._clear(parent, name)
            os.symlink(entry.link, name, dir_fd=parent.descriptor)
        self._attributes.set_at(parent, name, entry)

    def _put_node(self, parent: Directory, name: bytes, entry: Entry) -> None:
        """A FIFO or device; devices need rights that not even every root has."""
        self._clear(parent, name)
        kind = {Kind.FIFO: stat.S_IFIFO, Kind.CHARACTER_DEVICE: stat.S_IFCHR}.get(entry.kind, stat.S_IFBLK)
        try:
            os.mknod(name, kind | entry.mode, os.makedev(*entry.device), dir_fd=parent.descriptor)
        except PermissionError:
            self._put_placeholder(parent, name, entry)
        else:
            self._attributes.set_at(parent, name, entry)

    def _put_placeholder(self, parent: Directory, name: bytes, entry: Entry) -> None:
        """An empty file in a device's place, as umoci makes it (rule 14)."""
        path = (*parent.path, name)
        self._remarks.add("an empty file in place of a device, for lack of the right to make one", path)
        if self._notes is not None:
            major, minor = entry.device
            self._notes.add(path, "device", kind=entry.kind.name.lower(), major=major, minor=minor)
        self._put_file(parent, name, entry, ())

    def _link(self, parent: Directory, name: bytes, target: Path) -> bool:
        """Whether the link was made or noted."""
        source = self._tree.find(target[:-1])
        path = (*parent.path, name)
        if source is None:
            return self._note_link(parent, name, target)
        real = (*source.path, target[-1])
        if self._notes is not None and (lower := self._notes.link_of(real)):
            return real != path and self._note_link(parent, name, tuple(os.fsencode(lower).split(b"/")))
        try:
            if is_directory(source.descriptor, target[-1]):
                raise UnsafeLayer(f"{shown(target)}: a hard link to a directory")
        except FileNotFoundError:
            return self._note_link(parent, name, target)
        self._tree.check_spelling(source, target[-1])
        if real == path:
            return False
        self._make_link(source, target[-1], parent, name)
        return True

    def _make_link(self, source: Directory, target: bytes, parent: Directory, name: bytes) -> None:
        for is_last in (False, True):
            try:
                os.link(target, name, src_dir_fd=source.descriptor, dst_dir_fd=parent.descriptor, follow_symlinks=False)
            except FileExistsError:
                if is_last:
                    raise
                self._clear(parent, name)
            else:
                break
        if self._notes is not None:
            self._notes.forget((*parent.path, name))

    def _note_link(self, parent: Directory, name: bytes, target: Path) -> bool:
        """Notes a link into lower layers, where there may be any; an empty file keeps its place until the end."""
        if self._notes is None or self._is_hidden(target):
            return False
        path = (*parent.path, name)
        os.close(self._create(parent, name))
        self._notes.forget(path)
        self._notes.add(path, "link", to=os.fsdecode(b"/".join(target)))
        return True

    def _is_hidden(self, target: Path) -> bool:
        """Whether a marker of this layer, kept as a file, says that lower layers have nothing at ``target``."""
        for end, name in enumerate(target):
            here = self._tree.find(target[:end])
            if here is None:
                return False
            if any(_exists(here.descriptor, marker) for marker in (WHITEOUT + name, OPAQUE)):
                return True
        return False

    def _collect_notes(self, notes: Notes) -> Iterator[Note]:
        """What is still so; the empty files that kept the places of links go."""
        for path, _ in self._tree.open_each(sorted(self._directories)):
            if self._directories[path] is _IMPLICIT:
                notes.add(path, "implicit")
        noted = dict(notes)
        folders: dict[Path, list[Path]] = {}
        for path in noted:
            folders.setdefault(path[:-1], []).append(path)
        for folder, descriptor in self._tree.open_each(sorted(folders)):
            for path in folders[folder]:
                if not path or _exists(descriptor, path[-1]):
                    yield from noted[path]
                    if notes.link_of(path):
                        os.unlink(path[-1], dir_fd=descriptor)


def _exists(parent: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return False
    return True


def _write_sparse(descriptor: int, entry: Entry, data: Iterable[memoryview]) -> None:
    """The stored bytes to their places; between them the file has holes."""
    pieces, piece = iter(data), memoryview(b"")
    for offset, length in entry.extents or ():
        end = offset + length
        while offset < end:
            piece = piece or next(pieces)
            done = os.pwrite(descriptor, piece[: min(end - offset, PIECE)], offset)
            piece, offset = piece[done:], offset + done
    os.ftruncate(descriptor, entry.size)
