"""Owner, extended attributes, mode and times of what was just made.

Law: in this order, because a change of owner clears setuid bits and capabilities, and all else changes times (rule 11).
On descriptors of what we made; what cannot be opened (links, nodes) by its name in a directory that is ours, and never
followed (rule U4). A refusal is remarked where rights or support are missing, and an error where we have all rights.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from moorage.puller.entries import Entry, Kind
from moorage.puller.errors import UnsafeLayer
from moorage.puller.unpack.decide import Path, shown
from moorage.puller.unpack.limits import Limits
from moorage.puller.unpack.owners import ROOTLESS, OwnerMode, default_owners, encode_owner, has_all_rights
from moorage.puller.unpack.remarks import Remarks
from moorage.puller.unpack.rooted import Directory
from moorage.puller.unpack.xattrs import check_xattrs, chosen_xattrs

__all__ = ["Attributes"]

_DEFAULT_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


class Attributes:
    """Sets the attributes of entries below ``root``, an empty directory.

    Args:
        owners: None for the default of this user.
        is_alone: the tree is that of a single layer.
    """

    def __init__(
        self, root: int, owners: OwnerMode | None, limits: Limits, remarks: Remarks, *, is_alone: bool
    ) -> None:
        self.owners = owners or default_owners()
        self._limits = limits
        self._remarks = remarks
        self._is_alone = is_alone
        self._has_all_rights = has_all_rights()
        self._has_xattrs = hasattr(os, "setxattr")
        for name in _DEFAULT_ACLS if self._has_xattrs else ():
            with suppress(OSError):  # the place's default ACL would be inherited by everything
                os.removexattr(root, name)
        # What is made here belongs to us, unless the place hands down its group.
        is_ours = not os.fstat(root).st_mode & stat.S_ISGID
        self._maker = (os.geteuid(), os.getegid()) if is_ours else None

    def set_on(self, descriptor: int, entry: Entry, path: Path) -> None:
        """Of a file or directory, the last thing done to it.

        Raises:
            UnsafeLayer, BrokenLayer: it has attributes that cannot be.
            OSError: the file system refuses.
        """
        if self.owners is OwnerMode.KEEP and (entry.uid, entry.gid) != self._maker:
            try:
                os.fchown(descriptor, entry.uid, entry.gid)
            except OSError as exc:
                self._excuse_owner(exc, entry, path)
        for key, value in self._choose(entry):
            try:
                os.setxattr(descriptor, key, value)
            except OSError as exc:
                self._excuse_xattr(exc, key, value, path)
        os.fchmod(descriptor, entry.mode)
        os.utime(descriptor, ns=(entry.mtime, entry.mtime))

    def set_at(self, parent: Directory, name: bytes, entry: Entry) -> None:
        """Of a link or node, by its name.

        Raises:
            UnsafeLayer, BrokenLayer: it has attributes that cannot be.
            OSError: the file system refuses.
        """
        path = (*parent.path, name)
        if self.owners is OwnerMode.KEEP and (entry.uid, entry.gid) != self._maker:
            try:
                os.chown(name, entry.uid, entry.gid, dir_fd=parent.descriptor, follow_symlinks=False)
            except OSError as exc:
                self._excuse_owner(exc, entry, path)
        for key, value in self._choose(entry):
            try:
                os.setxattr(b"/proc/self/fd/%d/%b" % (parent.descriptor, name), key, value, follow_symlinks=False)
            except OSError as exc:
                if exc.errno == errno.EPERM and key.startswith(b"user."):  # xattr(7): files and directories alone
                    exc.errno = errno.ENOTSUP
                self._excuse_xattr(exc, key, value, path)
        if entry.kind is not Kind.SYMLINK:
            os.chmod(name, entry.mode, dir_fd=parent.descriptor)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent.descriptor, follow_symlinks=False)

    def _choose(self, entry: Entry) -> Iterator[tuple[bytes, bytes]]:
        if entry.xattrs:
            check_xattrs(entry.xattrs, self._limits)
            for key, value in chosen_xattrs(entry.xattrs, is_alone=self._is_alone):
                if self.owners is not OwnerMode.RECORD or key != ROOTLESS:
                    yield key, value
        if self.owners is OwnerMode.RECORD and (entry.uid or entry.gid):
            yield ROOTLESS, encode_owner(entry.uid, entry.gid)

    def _excuse_owner(self, exc: OSError, entry: Entry, path: Path) -> None:
        """EINVAL: the user namespace has no such number."""
        if self._has_all_rights or exc.errno not in (errno.EPERM, errno.EINVAL):
            raise exc
        self._remarks.add("left to you, for lack of the right to give files away", path)

    def _excuse_xattr(self, exc: OSError, key: bytes, value: bytes, path: Path) -> None:
        name = os.fsdecode(key)
        if exc.errno == errno.ENOTSUP or (exc.errno == errno.EPERM and not self._has_all_rights):
            why = "is not supported here" if exc.errno == errno.ENOTSUP else "is not ours to set"
            self._remarks.add(f"left out: the attribute {ascii(name)[:80]} {why}", path)
        elif exc.errno in (errno.EINVAL, errno.ERANGE, errno.E2BIG, errno.ENOSPC, errno.ENODATA):
            reason = f"{len(value)} bytes, {exc.strerror}"
            raise UnsafeLayer(f"{shown(path)}: the attribute {ascii(name)[:80]} cannot be set: {reason}") from exc
        else:
            raise exc
