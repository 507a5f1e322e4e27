"""The start of a directory store: makes its layout, asks what the file system can keep, clears what crashes left.

Law: nothing here looks at objects, so a root with a million of them is ready at once.
"""

from __future__ import annotations

import contextlib
import os
import stat

from moorage.storage_backends.base import UPLOADS
from moorage.storage_backends.durability import Disk
from moorage.storage_backends.errors import StorageError
from moorage.storage_backends.tree import Tree
from moorage.storage_backends.walk import LOST_AND_FOUND, PRIVATE

__all__ = ["accept_root", "prepare_root"]


def prepare_root(tree: Tree, disk: Disk, *, stale_before: float) -> None:
    """Makes the root ready; may block.

    Args:
        stale_before: temporary files that nobody touched since (Unix time) are removed.

    Raises:
        StorageError: the root is no directory or holds something else, others may write into it, or it takes ``a`` and
            ``A`` for the same name.
    """
    try:
        os.makedirs(tree.root, mode=0o700, exist_ok=True)
        is_directory = True
    except FileExistsError:  # so it says, too, where a failing disk lets nobody look: then this does as well
        is_directory = stat.S_ISDIR(os.stat(tree.root).st_mode)
    except NotADirectoryError:
        is_directory = False
    if not is_directory:
        raise StorageError(f"{tree.root} is no directory, or lies in what is none")
    if os.stat(tree.root).st_mode & stat.S_IWOTH:
        raise StorageError(f"everybody may write into {tree.root}: take that right away (chmod o-w)")
    _require_ours(tree.root)
    for folder in (PRIVATE, *(f"{PRIVATE}{name}" for name in ("tmp", "staging", "locks")), UPLOADS):
        _make(tree.base + folder)
    _require_case(tree)
    _sweep(f"{tree.private}tmp", stale_before)
    disk.sync_directory(tree.root)
    with contextlib.suppress(PermissionError):  # a parent that we may not even read: the administrator made the root
        disk.sync_directory(os.path.dirname(tree.root))


def accept_root(tree: Tree) -> None:
    """Takes a root that cannot be written to, such as a snapshot, as it is.

    Raises:
        StorageError: it is no store, or takes ``a`` and ``A`` for the same name.
    """
    try:
        is_store = stat.S_ISDIR(os.stat(tree.private).st_mode)
    except (FileNotFoundError, NotADirectoryError):  # anything else is not to be seen now, and nobody's to judge
        is_store = False
    if not is_store:
        raise StorageError(f"{tree.root} holds no Moorage store, and none can be made there")
    if os.path.lexists(tree.base + PRIVATE.upper()):
        raise _folds_case(tree)


def _folds_case(tree: Tree) -> StorageError:
    return StorageError(f"{tree.root} does not tell upper from lower case in names: choose another file system")


def _require_ours(root: str) -> None:
    # Before anything is made: a root that was named by mistake is left as it was.
    found = set(os.listdir(root)) - {LOST_AND_FOUND}
    if found and PRIVATE.rstrip("/") not in found:
        raise StorageError(f"{root} is not empty and not a Moorage store: it has {min(found)!r}")


def _make(directory: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)


def _require_case(tree: Tree) -> None:
    # Tags differ in case: on such a file system pushing one would overwrite another.
    lower = f"{tree.temporary()}-case"
    os.close(os.open(lower, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        if os.path.lexists(f"{lower[:-5]}-CASE"):
            raise _folds_case(tree)
    finally:
        os.unlink(lower)


def _sweep(folder: str, stale_before: float) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another process starts too
                if entry.stat(follow_symlinks=False).st_mtime < stale_before:
                    os.unlink(entry.path)
