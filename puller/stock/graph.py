"""What each name in the store leads to: manifests, blobs, trees.

Law: what cannot be read is never taken for nothing. A manifest that is not here leads nowhere (images of an index that
were not fetched are normal); one that is here and damaged ends the walk with an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from moorage.puller.errors import ImageError
from moorage.puller.image import blobs_of, read_config
from moorage.puller.layout_catalog import is_parseable, load_manifest
from moorage.puller.layout_files import LayoutFiles
from moorage.registry.oci import ALGORITHMS, Descriptor, Digest, DigestInvalid, ImageManifest, OciError
from moorage.registry.oci.values import dataclass

__all__ = ["Graph", "Needs", "StoredManifest", "list_blobs", "list_trees", "parse_file_name"]


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """An image manifest in the store. ``config``: its config where that is one of a container image, else empty."""

    descriptor: Descriptor
    image: ImageManifest
    config: Mapping[str, Any]

    @property
    def diff_ids(self) -> list[Digest]:
        """The diffIDs that the config names, lowest first; none where they cannot be read."""
        rootfs = self.config.get("rootfs")
        raw = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        try:
            return [Digest.parse(str(diff_id)) for diff_id in raw or ()]
        except (DigestInvalid, TypeError):
            return []


@dataclass(frozen=True, slots=True)
class Needs:
    """What a name leads to. ``blobs``: what is here of it, manifests too, by size in bytes; ``trees``: diffIDs."""

    blobs: Mapping[Digest, int]
    trees: frozenset[Digest]
    images: tuple[StoredManifest, ...]

    @property
    def size(self) -> int:
        """Bytes of the blobs."""
        return sum(self.blobs.values())


class Graph:
    """Reads each manifest once. One graph sees one moment: make another after the store has changed."""

    def __init__(self, files: LayoutFiles) -> None:
        self._files = files
        self._known: dict[Digest, Needs] = {}

    def needs(self, root: Descriptor) -> Needs:
        """What ``root`` leads to.

        Raises:
            LayoutInvalid: a manifest below it is damaged.
        """
        if root.digest not in self._known:
            blobs: dict[Digest, int] = {}
            images = tuple(self._walk(root, blobs))
            trees = frozenset(diff_id for image in images for diff_id in image.diff_ids)
            self._known[root.digest] = Needs(blobs, trees, images)
        return self._known[root.digest]

    def needs_of_all(self, roots: Iterable[Descriptor]) -> Needs:
        """What any of them leads to.

        Raises:
            LayoutInvalid: a manifest below them is damaged.
        """
        all_of = [self.needs(root) for root in roots]
        blobs = {digest: size for needs in all_of for digest, size in needs.blobs.items()}
        return Needs(blobs, frozenset().union(*(needs.trees for needs in all_of)), ())

    def _walk(self, root: Descriptor, blobs: dict[Digest, int]) -> Iterator[StoredManifest]:
        waiting = [root]
        while waiting:
            descriptor = waiting.pop()
            if descriptor.digest in blobs or not self._take(descriptor.digest, blobs) or not is_parseable(descriptor):
                continue
            manifest = load_manifest(self._files, descriptor)
            document = manifest.document
            waiting.extend(document.manifests)
            for blob in blobs_of(manifest):
                self._take(blob.digest, blobs)
            if isinstance(document, ImageManifest):
                yield StoredManifest(descriptor, document, self._read_config(document))

    def _take(self, digest: Digest, blobs: dict[Digest, int]) -> bool:
        if self._files.has_blob(digest):
            blobs[digest] = self._files.stat_blob(digest)
        return digest in blobs

    def _read_config(self, image: ImageManifest) -> Mapping[str, Any]:
        try:
            return read_config(self._files, image)
        except (ImageError, OciError):
            return {}  # an artifact has anything for a config, and a config may be absent


def list_blobs(files: LayoutFiles) -> dict[Digest, int]:
    """Every blob file with its size; what has no digest for a name is another program's."""
    found: dict[Digest, int] = {}
    for algorithm in ALGORITHMS:
        folder = os.path.join(files.root, "blobs", algorithm)
        for entry in os.scandir(folder) if os.path.isdir(folder) else ():
            digest = _digest(f"{algorithm}:{entry.name}")
            if digest is not None and entry.is_file(follow_symlinks=False):
                found[digest] = entry.stat(follow_symlinks=False).st_size
    return found


def list_trees(root: str) -> dict[Digest, str]:
    """The path of every unpacked layer of the store, by diffID."""
    folder = os.path.join(root, "unpacked")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return {digest: os.path.join(folder, name) for name in names if (digest := parse_file_name(name)) is not None}


def parse_file_name(name: str) -> Digest | None:
    """The digest that a file name ``<alg>-<hex>`` says; None if it says none."""
    return _digest(name.replace("-", ":", 1))


def _digest(text: str) -> Digest | None:
    try:
        return Digest.parse(text)
    except DigestInvalid:
        return None
