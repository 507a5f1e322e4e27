"""Gives disk space back: what no image needs, and on demand the images that were of no use for longest.

Law: content that a name leads to goes only together with the name. Order of leaving: content that no name leads to and
unfinished content that has been left alone for a day; images older than ``older_than``; then, until the store is as
small as ``max_size``, the rest of the unfinished content and the least recently used image, again and again.
The last use is the time of the manifest's file (``Store.mark_used``): one system call a pull, and no database.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator

from moorage.puller.layout_files import Entry, LayoutFiles
from moorage.puller.stock.graph import Graph, Needs, list_blobs, list_trees, parse_file_name
from moorage.puller.stock.images import last_use
from moorage.puller.stock.removal import Removed, Trash, alone, tree_size
from moorage.registry.oci import Digest
from moorage.registry.oci.values import dataclass

__all__ = ["prune"]

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class _Unfinished:
    """A file of content on its way in. ``used``: Unix time."""

    path: str
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class _Stock:
    """What is in the store, with sizes in bytes; ``trees`` are measured only where a size was asked for."""

    blobs: dict[Digest, int]
    trees: dict[Digest, str]
    tree_sizes: dict[Digest, int]
    unfinished: list[_Unfinished]


def prune(
    files: LayoutFiles, *, older_than: float | None = None, max_size: int | None = None, wait: float = 10
) -> Removed:
    """Removes what the law says.

    Args:
        older_than: seconds since the last use of an image.
        max_size: bytes that the store may keep; trees count with the disk space that they take.
        wait: seconds that other processes get to finish what they do with the store.

    Raises:
        StoreInUse: they did not.
        LayoutInvalid: the store is damaged; nothing is removed.
    """
    files.unsynced.flush()
    # Measured before the store is held: it may take long, and a tree never changes.
    sizes = {diff_id: tree_size(path) for diff_id, path in list_trees(files.root).items()} if max_size else {}
    with alone(files, wait=wait) as hold:
        with hold() as trash:
            stock = _Stock(list_blobs(files), list_trees(files.root), sizes, list(_list_unfinished(files)))
            with files.edit_index() as entries:
                before = list(entries)
                unfinished = _choose(files, stock, entries, older_than, max_size)
                needed = Graph(files).needs_of_all(entry.descriptor for entry in entries)
            _take(stock, needed, unfinished, trash)
            _drop_locks(files)
            files.unsynced.settle()
        return trash.result(_names(before, entries))


def _choose(
    files: LayoutFiles, stock: _Stock, entries: list[Entry], older_than: float | None, max_size: int | None
) -> list[_Unfinished]:
    """Drops the entries that shall go; returns the unfinished content that goes with them."""
    now = time.time()
    limit = min(_DAY, older_than) if older_than is not None else _DAY
    going = [item for item in stock.unfinished if now - item.used > limit]
    used = {entry.descriptor.digest: last_use(files, entry.descriptor.digest) or 0.0 for entry in entries}
    if older_than is not None:
        entries[:] = [entry for entry in entries if now - used[entry.descriptor.digest] <= older_than]
    if max_size is not None:
        going = _shrink(files, stock, entries, used, going, max_size)
    return going


def _shrink(
    files: LayoutFiles,
    stock: _Stock,
    entries: list[Entry],
    used: dict[Digest, float],
    going: list[_Unfinished],
    max_size: int,
) -> list[_Unfinished]:
    graph = Graph(files)
    kept = sorted((item for item in stock.unfinished if item not in going), key=lambda item: item.used)
    order = sorted({entry.descriptor.digest for entry in entries}, key=lambda digest: (used[digest], str(digest)))
    while _size(stock, graph.needs_of_all(entry.descriptor for entry in entries), kept) > max_size:
        if kept:
            going.append(kept.pop(0))
        elif order:
            oldest = order.pop(0)
            entries[:] = [entry for entry in entries if entry.descriptor.digest != oldest]
        else:
            break
    return going


def _size(stock: _Stock, needed: Needs, unfinished: list[_Unfinished]) -> int:
    """Bytes of what would stay."""
    trees = sum(stock.tree_sizes.get(diff_id, 0) for diff_id in needed.trees)
    return needed.size + trees + sum(item.size for item in unfinished)


def _take(stock: _Stock, needed: Needs, unfinished: list[_Unfinished], trash: Trash) -> None:
    for digest in stock.blobs.keys() - needed.blobs.keys():
        trash.take_blob(digest, stock.blobs[digest])
    for diff_id in stock.trees.keys() - needed.trees:
        trash.take_tree(stock.trees[diff_id])
    for item in unfinished:
        trash.take_ingest(item.path, item.size)


def _list_unfinished(files: LayoutFiles) -> Iterator[_Unfinished]:
    folder = os.path.dirname(files.ingest_path("any"))
    for entry in os.scandir(folder):
        info = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(info.st_mode) and not entry.name.endswith(".lock"):
            yield _Unfinished(entry.path, info.st_blocks * 512, info.st_mtime)


def _drop_locks(files: LayoutFiles) -> None:
    """Removes the locks of what is no longer on its way: nobody can be waiting for them now."""
    for name in ("ingests", "unpacked"):
        folder = os.path.join(files.root, name)
        for lock in os.listdir(folder) if os.path.isdir(folder) else ():
            if lock.endswith(".lock") and parse_file_name(lock.removesuffix(".lock")) is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(folder, lock))


def _names(before: list[Entry], after: list[Entry]) -> list[str]:
    return [entry.ref_name or str(entry.descriptor.digest) for entry in before if entry not in after]
