"""Trees of the store: each layer unpacked by itself, once, for every image that has it.

Law: a tree is at ``unpacked/<alg>-<hex>`` (by diffID) only whole: its archive had that diffID, its blob its digest. One
process at a time makes a tree; others wait for it, and take over where it died. A tree is not brought to the disk
before it appears: that is noted, and in another life of the machine it is made anew. This module blocks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moorage.puller.staging import staging_directory
from moorage.puller.store import Store
from moorage.puller.unpack.apply import unpack_layers
from moorage.puller.unpack.layer import Layer, Unpacked
from moorage.puller.unpack.limits import Limits

__all__ = ["make_tree"]

_LOOK_AGAIN = 0.02


def make_tree(
    store: Store,
    layer: Layer,
    *,
    limits: Limits | None = None,
    before_appear: Callable[[], None] = lambda: None,
    check: Callable[[], None] = lambda: None,
) -> Unpacked | None:
    """Unpacks the layer into the store, its whiteouts kept as files; None if it is there already.

    The caller holds the store's lease.

    Args:
        before_appear: is called when the tree is complete; if it raises, nothing appears.
        check: is called now and then while another process makes the tree; if it raises, the waiting ends.

    Raises:
        UnsafeLayer, BrokenLayer: the layer is refused; nothing appears.
        OSError: the file system refuses; nothing appears.
    """
    path = store.tree_path(layer.diff_id)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with _locked(f"{path}.lock", check):
        if store.has_tree(layer.diff_id):
            return None
        store.remove_tree(layer.diff_id)
        with staging_directory(store.root) as staging:
            tree = os.path.join(staging, "tree")
            done = unpack_layers([layer], tree, keep_markers=True, limits=limits, before_appear=before_appear)
            store.files.unsynced.note(trees=[layer.diff_id])
            os.rename(tree, path)
        store.files.unsynced.renewed_tree(layer.diff_id)
    return done


@contextmanager
def _locked(path: str, check: Callable[[], None]) -> Iterator[None]:
    """Holds the lock of one tree. Its file is removed by the holder, so whoever gets a lock looks what it is of."""
    while True:
        check()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                break
        except (BlockingIOError, FileNotFoundError):
            time.sleep(_LOOK_AGAIN)
        os.close(descriptor)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(descriptor)
