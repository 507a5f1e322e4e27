"""What an image consists of: every manifest below it and the blobs that they need.

Law of graphs: each manifest is read once, at most 4 levels and 10,000 descriptors deep (rule A17). A copy is never
sparse in silence: a manifest that an index names and the source does not have is an error that says so.
"""

from __future__ import annotations

from collections.abc import Iterable

from moorage.puller.errors import ImageError
from moorage.puller.platforms import choose
from moorage.puller.transfer.crowd import for_each
from moorage.registry.oci import (
    Descriptor,
    Digest,
    ImageManifest,
    Manifest,
    ManifestUnknown,
    Platform,
    Registry,
    RepositoryName,
    TagOrDigest,
)
from moorage.registry.oci.media_types import IMAGE_TYPES, INDEX_TYPES, NONDISTRIBUTABLE_TYPES
from moorage.registry.oci.values import dataclass, field

__all__ = ["MAX_DESCRIPTORS", "Graph", "Place", "find_image", "read_graph"]

MAX_DESCRIPTORS = 10_000
_MAX_DEPTH = 4
_PARALLEL = 8


@dataclass(frozen=True, slots=True)
class Place:
    """A repository of a registry."""

    registry: Registry
    repository: RepositoryName


@dataclass(slots=True)
class Graph:
    """Manifests, children before their index, and the blobs they need. ``foreign``: layers that are their vendor's."""

    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    foreign: dict[Digest, Descriptor] = field(default_factory=dict)
    _count: int = 0

    def admit(self, manifest: Manifest, depth: int) -> list[Descriptor]:
        """Takes note of what the manifest needs; returns the manifests among it that are not here yet.

        Raises:
            ImageError: the graph is deeper or larger than the limits.
        """
        document = manifest.document
        self._count += len(document.blobs) + len(document.manifests) + 1
        if depth > _MAX_DEPTH or self._count > MAX_DESCRIPTORS:
            raise ImageError(f"more than {_MAX_DEPTH} levels of indexes or {MAX_DESCRIPTORS} descriptors")
        self.blobs.update((blob.digest, blob) for blob in document.blobs)
        if isinstance(document, ImageManifest):
            layers = (layer for layer in document.layers if layer.media_type in NONDISTRIBUTABLE_TYPES)
            self.foreign.update((layer.digest, layer) for layer in layers)
        children = []
        for child in document.manifests:
            if child.media_type not in IMAGE_TYPES | INDEX_TYPES:
                self.blobs[child.digest] = child  # build caches list their layers like this
            elif child.digest not in self.manifests:
                children.append(child)
        return children


async def find_image(source: Place, reference: TagOrDigest, platform: Platform | None) -> Manifest:
    """The manifest that ``reference`` names, or the one for ``platform`` in the index that it names.

    Raises:
        ManifestUnknown: the source has no such image.
        NoMatchingPlatform: the index has none for ``platform``.
    """
    manifest = await source.registry.read_manifest(source.repository, reference)
    for _ in range(_MAX_DEPTH):
        if platform is None or manifest.media_type not in INDEX_TYPES:
            return manifest
        chosen = choose(manifest.document.manifests, platform)
        manifest = await source.registry.read_manifest(source.repository, chosen.digest)
    raise ImageError(f"indexes nested deeper than {_MAX_DEPTH} levels")


async def read_graph(source: Place, root: Manifest, graph: Graph | None = None) -> Graph:
    """Everything below ``root``, and ``root`` itself as the last manifest; added to ``graph`` where one is given.

    Raises:
        ImageError: the graph is deeper or larger than the limits, or the source lacks a part of it.
    """
    graph = graph or Graph()

    async def visit(manifest: Manifest, depth: int) -> None:
        missing = graph.admit(manifest, depth)
        for child in await _read_all(source, missing):
            if child.digest not in graph.manifests:
                await visit(child, depth + 1)
        graph.manifests[manifest.digest] = manifest

    if root.digest not in graph.manifests:
        await visit(root, 1)
    return graph


async def _read_all(source: Place, children: Iterable[Descriptor]) -> list[Manifest]:
    async def read(child: Descriptor) -> Manifest:
        try:
            return await source.registry.read_manifest(source.repository, child.digest)
        except ManifestUnknown as exc:
            platform = f" ({child.platform})" if child.platform else ""
            raise ImageError(
                f"{source.repository} lacks {child.digest}{platform}, which its index names; choose one platform"
            ) from exc

    unique = {child.digest: child for child in children}
    return await for_each(unique.values(), read, limit=_PARALLEL)
