"""Takes names and content out of the store.

Law: names go first, under the index lock; then what no name leads to any more, while nobody uses the store
(``lease.hold_alone``). Content is only renamed into a staging directory meanwhile, and deleted when the others go on:
they wait for milliseconds, and a kill leaves nothing but staging for the next sweep.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from moorage.puller.errors import ImageError, StoreInUse
from moorage.puller.layout_files import Entry, LayoutFiles
from moorage.puller.lease import hold_alone
from moorage.puller.staging import staging_directory
from moorage.puller.stock.graph import Graph, Needs, list_blobs, list_trees
from moorage.registry.oci import Digest, Reference
from moorage.registry.oci.values import dataclass

__all__ = ["Removed", "Target", "Trash", "alone", "matching", "remove_images", "tree_size"]

_DIGEST_START = re.compile(r"(?P<algorithm>[a-z0-9]+):(?P<start>[0-9a-f]{8,128})")

Target = Reference | str
"""What to remove: a reference, or a digest of which at least eight digits are given (``sha256:0123abcd``)."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What is gone. ``size``: bytes freed; ``is_deferred``: content stays until ``prune``, the store was in use."""

    names: tuple[str, ...]
    blobs: int = 0
    trees: int = 0
    ingests: int = 0
    size: int = 0
    is_deferred: bool = False


class Trash:
    """Takes content out of sight, by renaming, and counts it. ``path``: a staging directory."""

    def __init__(self, files: LayoutFiles, path: str) -> None:
        self._files = files
        self._path = path
        self.blobs = self.trees = self.ingests = self.size = 0

    def take_blob(self, digest: Digest, size: int) -> None:
        """Takes the blob, of ``size`` bytes."""
        if self._take(self._files.blob_path(digest), f"blob-{digest.hex}"):
            self.blobs += 1
            self.size += size

    def take_tree(self, path: str) -> None:
        """Takes the unpacked layer at ``path``, and its lock."""
        if self._take(path, f"tree-{os.path.basename(path)}"):
            self.trees += 1
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}.lock")

    def take_ingest(self, path: str, size: int) -> None:
        """Takes a file of unfinished content."""
        if self._take(path, f"ingest-{os.path.basename(path)}"):
            self.ingests += 1
            self.size += size

    def _take(self, path: str, name: str) -> bool:
        try:
            os.rename(path, os.path.join(self._path, name))
        except FileNotFoundError:
            return False
        return True

    def result(self, names: Iterable[str]) -> Removed:
        """What was taken, once the trees have been measured: they are walked when nobody waits any more."""
        trees = [os.path.join(self._path, name) for name in os.listdir(self._path) if name.startswith("tree-")]
        size = self.size + sum(map(tree_size, trees))
        return Removed(tuple(names), self.blobs, self.trees, self.ingests, size)


@contextmanager
def alone(files: LayoutFiles, *, wait: float) -> Iterator[Callable[[], contextlib.AbstractContextManager[Trash]]]:
    """Yields a function that waits until nobody uses the store, for at most ``wait`` seconds; deletes at the end.

    The function's block is where the store is held alone; after it, inside this one, the trash may be measured.
    """
    with staging_directory(files.root) as path:

        @contextmanager
        def hold() -> Iterator[Trash]:
            with hold_alone(files.root, wait=wait):
                yield Trash(files, path)

        yield hold


def matching(entries: Iterable[Entry], target: Target) -> list[Entry]:
    """The entries that ``target`` means.

    Raises:
        ImageError: none, or a digest that could be one of several.
    """
    found = list(_by_reference(entries, target) if isinstance(target, Reference) else _by_digest(entries, target))
    if not found:
        raise ImageError(f"{target}: not in the store")
    if not isinstance(target, Reference) and len({entry.descriptor.digest for entry in found}) > 1:
        raise ImageError(f"{target}: several digests begin like this; give more of it")
    return found


def remove_images(files: LayoutFiles, targets: Iterable[Target]) -> Removed:
    """Takes the names away, then the content that only they led to, unless another process uses the store.

    All or nothing: if one of the targets is not there, no name goes.

    Raises:
        ImageError: a target is not in the store.
        LayoutInvalid: the store is damaged.
    """
    with files.edit_index() as entries:
        gone = [entry for target in targets for entry in matching(entries, target)]
        candidates = Graph(files).needs_of_all(entry.descriptor for entry in gone)
        entries[:] = [entry for entry in entries if entry not in gone]
    names = tuple(dict.fromkeys(entry.ref_name or str(entry.descriptor.digest) for entry in gone))
    try:
        with alone(files, wait=0) as hold:
            with hold() as trash:
                _take_unneeded(files, candidates, trash)
            return trash.result(names)
    except StoreInUse:
        return Removed(names, is_deferred=True)


def _take_unneeded(files: LayoutFiles, candidates: Needs, trash: Trash) -> None:
    """Takes those candidates that nothing leads to any more."""
    needed = Graph(files).needs_of_all(entry.descriptor for entry in files.read_index())
    blobs, trees = list_blobs(files), list_trees(files.root)
    for digest in candidates.blobs.keys() - needed.blobs.keys():
        trash.take_blob(digest, blobs.get(digest, 0))
    for diff_id in candidates.trees - needed.trees:
        if diff_id in trees:
            trash.take_tree(trees[diff_id])


def tree_size(path: str) -> int:
    """Bytes that a tree takes on the disk, its hard links counted once. It may be removed meanwhile."""
    seen: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(path):
        for name in (*names, "."):
            with contextlib.suppress(FileNotFoundError):
                info = os.lstat(os.path.join(folder, name))
                seen[info.st_dev, info.st_ino] = info.st_blocks * 512
    return sum(seen.values())


def _by_reference(entries: Iterable[Entry], wanted: Reference) -> Iterator[Entry]:
    place = f"{wanted.registry}/{wanted.repository}"
    if wanted.digest is None:
        return (entry for entry in entries if entry.ref_name == f"{place}:{wanted.tag}")
    mine = (entry for entry in entries if (entry.ref_name or "").startswith((f"{place}:", f"{place}@")))
    return (entry for entry in mine if entry.descriptor.digest == wanted.digest)


def _by_digest(entries: Iterable[Entry], start: str) -> Iterator[Entry]:
    if not _DIGEST_START.fullmatch(start):
        raise ImageError(f"{start}: neither a reference nor the start of a digest (sha256: and at least 8 digits)")
    return (entry for entry in entries if str(entry.descriptor.digest).startswith(start))
