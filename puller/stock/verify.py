"""Checks that the store is what it says: every blob its digest, every name whole, every tree what its layer unpacks to.

Law: looking changes nothing. Mending only takes away: damaged content, and names that no longer lead to whole images,
so that the next pull fetches what is missing and nobody is served half an image.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

from moorage.puller.image import blobs_of
from moorage.puller.layout_catalog import is_parseable, load_manifest
from moorage.puller.layout_files import Entry, LayoutFiles
from moorage.puller.stock.graph import Graph, list_blobs, list_trees
from moorage.puller.stock.removal import Removed, Trash, alone
from moorage.puller.stock.trees import changed_trees
from moorage.registry.oci import Descriptor, Digest, OciError
from moorage.registry.oci.media_types import NONDISTRIBUTABLE_TYPES
from moorage.registry.oci.values import dataclass

__all__ = ["Defect", "Kind", "Verified", "mend_store", "verify_store"]

_CHUNK = 1024 * 1024
_MAX_THREADS = 4


class Kind(StrEnum):
    """What is wrong."""

    DAMAGED = "damaged"
    """A blob does not have its digest."""
    LACKING = "lacking"
    """A name leads to content that is not here."""
    DOUBTFUL = "doubtful"
    """A tree was made before the machine last started, and not seen on the disk."""
    CHANGED = "changed"
    """A tree is not what its layer unpacks to."""


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that is wrong. ``digest``: of the content, or the diffID of a tree; ``name``: of the image, if any;
    ``path``: the first in a tree that differs."""

    kind: Kind
    digest: Digest
    name: str = ""
    path: str = ""

    def __str__(self) -> str:
        match self.kind:
            case Kind.DAMAGED:
                return f"the blob {self.digest} is damaged"
            case Kind.LACKING:
                return f"{self.name} lacks {self.digest}"
            case Kind.DOUBTFUL:
                return f"the tree of {self.digest} was made before the machine last started, and may be damaged"
            case Kind.CHANGED:
                return f"the tree of {self.digest} is not what its layer unpacks to: {self.path}"


@dataclass(frozen=True, slots=True)
class Verified:
    """What was looked at. ``size``: bytes of the blobs."""

    blobs: int
    size: int
    names: int
    trees: int
    defects: tuple[Defect, ...]


def verify_store(files: LayoutFiles) -> Verified:
    """Reads all of the store; call it under a lease. Defects are in the order of blobs, names, trees.

    Raises:
        LayoutInvalid: ``index.json`` cannot be read.
    """
    blobs, entries, trees = list_blobs(files), files.read_index(), list_trees(files.root)
    damaged = set(_damaged(files, blobs))
    whole = blobs.keys() - damaged
    defects = [Defect(Kind.DAMAGED, digest) for digest in sorted(damaged, key=str)]
    layers: dict[Digest, Descriptor] = {}
    for entry in entries:
        found = list(_check_entry(files, entry, whole, damaged))
        defects += found
        layers |= {} if found else _layers_of(files, entry)
    doubtful = {tree for tree in trees if files.unsynced.is_doubtful_tree(tree)}
    defects += [Defect(Kind.DOUBTFUL, tree) for tree in sorted(doubtful, key=str)]
    sure = {tree: path for tree, path in trees.items() if tree not in doubtful}
    defects += [Defect(Kind.CHANGED, tree, path=path) for tree, path in changed_trees(files, sure, layers)]
    return Verified(len(blobs), sum(blobs.values()), len(entries), len(trees), tuple(defects))


def _layers_of(files: LayoutFiles, entry: Entry) -> dict[Digest, Descriptor]:
    """The blobs of the layers of the images that a whole entry leads to, as far as they are here, by diffID."""
    images = Graph(files).needs(entry.descriptor).images
    pairs = [pair for image in images for pair in zip(image.diff_ids, image.image.layers, strict=False)]
    return {diff_id: layer for diff_id, layer in pairs if files.has_blob(layer.digest)}


def mend_store(files: LayoutFiles, verified: Verified, *, wait: float = 10) -> Removed:
    """Takes away what ``verified`` found wrong, unless somebody put it right meanwhile.

    Raises:
        StoreInUse: others use the store.
    """
    with alone(files, wait=wait) as hold:
        with hold() as trash:
            blobs, trees = list_blobs(files), list_trees(files.root)
            suspects = {d.digest: blobs[d.digest] for d in verified.defects if d.digest in blobs}
            damaged = set(_damaged(files, suspects))
            _take(files, trash, damaged, trees, verified)
            with files.edit_index() as entries:
                whole = blobs.keys() - damaged
                broken = [entry for entry in entries if any(_check_entry(files, entry, whole, damaged))]
                entries[:] = [entry for entry in entries if entry not in broken]
        return trash.result(entry.ref_name or str(entry.descriptor.digest) for entry in broken)


def _take(
    files: LayoutFiles, trash: Trash, damaged: Iterable[Digest], trees: dict[Digest, str], verified: Verified
) -> None:
    for digest in damaged:
        trash.take_blob(digest, os.stat(files.blob_path(digest)).st_size)
        files.unsynced.renewed_blob(digest)
    for defect in verified.defects:
        if defect.kind in (Kind.DOUBTFUL, Kind.CHANGED) and defect.digest in trees:
            trash.take_tree(trees[defect.digest])
            files.unsynced.renewed_tree(defect.digest)


def _damaged(files: LayoutFiles, blobs: Iterable[Digest]) -> Iterator[Digest]:
    """Those that do not have their digest; several are read at once, hashing needs no interpreter lock."""
    wanted = list(blobs)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as pool:
        holds = pool.map(lambda digest: _has_its_digest(files.blob_path(digest), digest), wanted)
        yield from (digest for digest, is_good in zip(wanted, holds, strict=True) if not is_good)


def _has_its_digest(path: str, digest: Digest) -> bool:
    hasher = digest.hasher()
    try:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
    except FileNotFoundError:
        return True  # removed meanwhile
    return hasher.hexdigest() == digest.hex


def _check_entry(files: LayoutFiles, entry: Entry, whole: Set[Digest], damaged: Set[Digest]) -> Iterator[Defect]:
    """What a name leads to and is not here, or not whole. Images of an index that were never fetched are no defect."""
    name = entry.ref_name or str(entry.descriptor.digest)
    waiting, seen = [(entry.descriptor, True)], set[Digest]()
    while waiting:
        descriptor, is_needed = waiting.pop(0)
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        if descriptor.digest not in whole:
            if is_needed or descriptor.digest in damaged:
                yield Defect(Kind.LACKING, descriptor.digest, name)
            continue
        waiting.extend(_below(files, descriptor))


def _below(files: LayoutFiles, descriptor: Descriptor) -> list[tuple[Descriptor, bool]]:
    """What a manifest references, and whether it must be here."""
    if not is_parseable(descriptor):
        return []
    try:
        manifest = load_manifest(files, descriptor)
        children = [(child, False) for child in manifest.document.manifests]
    except OciError:
        return []  # it has its digest and cannot be parsed: as it was pulled
    return children + [(blob, blob.media_type not in NONDISTRIBUTABLE_TYPES) for blob in blobs_of(manifest)]
