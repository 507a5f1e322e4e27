"""The entries of a directory, in the order and with the attributes that its layer has.

Law: what is said depends on the tree alone: names in byte order, parents first, owners in numbers, the second name of a
file a hard link to the first that is packed. No link is followed, and a file that is not what it was when its header
was written is an error.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from moorage.puller.entries import Entry, Kind
from moorage.puller.errors import PackError
from moorage.puller.pack.options import AsOnDisk, PackOptions
from moorage.puller.unpack.owners import ROOTLESS, decode_owner
from moorage.registry.oci.values import dataclass

__all__ = ["TreeEntry", "read_tree"]

_NANO = 1_000_000_000
_WHITEOUT = b".wh."
_KINDS: Mapping[int, Kind] = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
}
# What the kernel or a security module derives from the place a file is in, not from the file.
_KEPT_XATTRS = ("user.", "security.capability")
# A file that became a FIFO meanwhile must not hold us up.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """An entry of the layer and where it is. ``info``: what the header was made from."""

    entry: Entry
    path: bytes
    info: os.stat_result

    def open(self) -> BinaryIO:
        """The content of a file.

        Raises:
            PackError: there is another file at its place now.
        """
        file = open(os.open(self.path, _OPEN), "rb", buffering=0)  # noqa: SIM115 (the caller closes it)
        if not os.path.samestat(os.fstat(file.fileno()), self.info):
            file.close()
            raise PackError(f"{os.fsdecode(self.entry.name)}: changed while it was read")
        return file


class _Describer:
    """Makes headers. ``epoch``: newer times become this one, in seconds."""

    def __init__(self, options: PackOptions, epoch: int | None) -> None:
        self._options = options
        self._epoch = epoch
        self._first_names: dict[tuple[int, int], bytes] = {}

    def describe(self, name: bytes, path: bytes, info: os.stat_result) -> Entry | None:
        """The entry of a path; None for a socket.

        Raises:
            PackError: the name would delete in an image.
        """
        if name.rpartition(b"/")[2].startswith(_WHITEOUT):
            raise PackError(f"{os.fsdecode(name)}: a name that begins with .wh. would delete in an image")
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            return None
        xattrs = _read_xattrs(path) if kind in (Kind.FILE, Kind.DIRECTORY) else {}
        uid, gid = self._owner(info, xattrs.pop(ROOTLESS, None))
        common = (stat.S_IMODE(info.st_mode), uid, gid, self._time(info))
        match kind:
            case Kind.FILE:
                first = self._first_names.setdefault((info.st_dev, info.st_ino), name) if info.st_nlink > 1 else name
                if first != name:
                    return Entry(name, Kind.HARD_LINK, *common, link=first)
                return Entry(name, kind, *common, size=info.st_size, xattrs=xattrs)
            case Kind.SYMLINK:
                # Its mode means nothing, and differs between systems.
                return Entry(name, kind, 0o777, *common[1:], link=os.readlink(path))
            case Kind.CHARACTER_DEVICE | Kind.BLOCK_DEVICE:
                return Entry(name, kind, *common, device=(os.major(info.st_rdev), os.minor(info.st_rdev)))
            case _:
                return Entry(name, kind, *common, xattrs=xattrs)

    def _time(self, info: os.stat_result) -> int:
        return info.st_mtime_ns if self._epoch is None else min(info.st_mtime_ns, self._epoch * _NANO)

    def _owner(self, info: os.stat_result, noted: bytes | None) -> tuple[int, int]:
        wanted = self._options.owner
        if isinstance(wanted, tuple):
            return wanted
        if noted is not None and (owner := decode_owner(noted)) is not None:
            return owner
        return (info.st_uid, info.st_gid) if isinstance(wanted, AsOnDisk) else (0, 0)


def read_tree(root: bytes, options: PackOptions, epoch: int | None, skipped: list[str]) -> Iterator[TreeEntry]:
    """Every entry below ``root``; what has no place in an image goes into ``skipped`` by name.

    Raises:
        PackError: a name cannot be represented.
    """
    describer = _Describer(options, epoch)
    for name, path, info in _select(root, options):
        entry = describer.describe(name, path, info)
        if entry is None:
            skipped.append(os.fsdecode(name))
        else:
            yield TreeEntry(entry, path, info)


def _select(root: bytes, options: PackOptions) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """What is not left out. A directory that is left out comes all the same, before what is taken back below it."""
    ignore, held = options.ignore, list[tuple[bytes, bytes, os.stat_result]]()
    waiting = _children(root, b"")
    while waiting:
        name = waiting.pop()
        path = os.path.join(root, name)
        info = os.lstat(path)
        is_out, is_folder = ignore.leaves_out(name), stat.S_ISDIR(info.st_mode)
        held = [one for one in held if name.startswith(one[0] + b"/")]
        if is_out and is_folder and ignore.has_exceptions:
            held.append((name, path, info))
        elif not is_out:
            yield from held
            held = []
            yield name, path, info
        if is_folder and (not is_out or ignore.has_exceptions):
            waiting.extend(_children(root, name))


def _children(root: bytes, name: bytes) -> list[bytes]:
    """Names below a directory, the first in byte order last."""
    folder = os.path.join(root, name)
    return [os.path.join(name, child) for child in sorted(os.listdir(folder), reverse=True)]


def _read_xattrs(path: bytes) -> dict[bytes, bytes]:
    if not hasattr(os, "listxattr"):
        return {}
    names = [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith(_KEPT_XATTRS)]
    return {os.fsencode(name): os.getxattr(path, name, follow_symlinks=False) for name in names}
