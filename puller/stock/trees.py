"""Whether a tree of the store is what its layer unpacks to.

Law: the layer is unpacked once more, aside, and the two are compared: kinds, modes, contents, targets of links and
numbers of devices. Owners and times are not, which a copy of the store as another user may not keep; nor is a device
told from the empty file that stands for it where somebody had no right to make one (rule 14). Looking changes nothing:
where we may not read a file, its size has to do. This module blocks.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from moorage.puller.errors import BrokenLayer, UnsafeLayer
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.staging import is_writable, staging_directory
from moorage.puller.unpack.apply import unpack_layers
from moorage.puller.unpack.layer import Layer
from moorage.puller.unpack.notes import NOTES
from moorage.registry.oci import Descriptor, Digest

__all__ = ["changed_trees"]

_CHUNK = 1024 * 1024
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOTES = os.fsdecode(NOTES)


def changed_trees(
    files: LayoutFiles, trees: Mapping[Digest, str], layers: Mapping[Digest, Descriptor]
) -> Iterator[tuple[Digest, str]]:
    """The trees that are not what their layers unpack to, each with the first path in it that differs.

    Args:
        trees: their paths, by diffID.
        layers: the blobs to compare with, by diffID; a tree that has none is not looked at.

    Raises:
        OSError: there is no room for one more copy of a tree.
    """
    for diff_id in sorted(trees.keys() & layers.keys(), key=str):
        layer = Layer(layers[diff_id], diff_id, partial(files.open_blob, layers[diff_id].digest))
        with _scratch(files.root) as scratch:
            fresh = os.path.join(scratch, "tree")
            try:
                unpack_layers([layer], fresh, keep_markers=True)
                path = _first_difference(trees[diff_id], fresh)
            except (BrokenLayer, UnsafeLayer) as exc:
                path = str(exc)
        if path is not None:
            yield diff_id, path


@contextmanager
def _scratch(root: str) -> Iterator[str]:
    """A directory of ours; in a store that may only be read, where temporary files go."""
    with ExitStack() as stack:
        if not is_writable(root):
            root = stack.enter_context(tempfile.TemporaryDirectory(prefix="moorage-"))
        yield stack.enter_context(staging_directory(root))


def _first_difference(tree: str, fresh: str) -> str | None:
    with ExitStack() as stack:
        one, other = (_open(stack, path) for path in (tree, fresh))
        return _compare_folders(one, other)


def _compare_folders(tree: int, fresh: int) -> str | None:
    """The first path below that differs."""
    names, others = set(os.listdir(tree)) - {_NOTES}, set(os.listdir(fresh)) - {_NOTES}
    for name in sorted(names ^ others):
        return name
    for name in sorted(names):
        below = _compare(tree, fresh, name)
        if below is not None:
            return os.path.join(name, below) if below else name
    return None


def _compare(tree: int, fresh: int, name: str) -> str | None:
    """None: the same; "": not; else what differs below."""
    one, other = (os.stat(name, dir_fd=parent, follow_symlinks=False) for parent in (tree, fresh))
    if (one.st_mode, one.st_rdev) != (other.st_mode, other.st_rdev):
        return None if _stands_for(one, other) or _stands_for(other, one) else ""
    if stat.S_ISLNK(one.st_mode):
        return None if os.readlink(name, dir_fd=tree) == os.readlink(name, dir_fd=fresh) else ""
    if stat.S_ISREG(one.st_mode) and one.st_size != other.st_size:
        return ""
    if not (stat.S_ISREG(one.st_mode) or stat.S_ISDIR(one.st_mode)):
        return None
    with ExitStack() as stack, suppress(PermissionError):  # its mode forbids it to its owner, who may not be root
        here, there = (_open(stack, name, parent) for parent in (tree, fresh))
        if stat.S_ISDIR(one.st_mode):
            return _compare_folders(here, there)
        return None if _same_content(here, there) else ""
    return None


def _stands_for(file: os.stat_result, device: os.stat_result) -> bool:
    is_device = stat.S_ISCHR(device.st_mode) or stat.S_ISBLK(device.st_mode)
    is_placeholder = stat.S_ISREG(file.st_mode) and file.st_size == 0
    return is_device and is_placeholder and stat.S_IMODE(file.st_mode) == stat.S_IMODE(device.st_mode)


def _same_content(one: int, other: int) -> bool:
    while (chunk := os.read(one, _CHUNK)) == os.read(other, _CHUNK):
        if not chunk:
            return True
    return False


def _open(stack: ExitStack, name: str, parent: int | None = None) -> int:
    descriptor = os.open(name, _OPEN, dir_fd=parent)
    stack.callback(os.close, descriptor)
    return descriptor
