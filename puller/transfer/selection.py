"""What a copy has to do with: the image, all below it, and on demand all that refers to it."""

from __future__ import annotations

from collections.abc import Sequence

from moorage.puller.transfer.graph import Place, find_image, read_graph
from moorage.puller.transfer.known import Known, StoredNames
from moorage.puller.transfer.referrers import read_attached
from moorage.registry.oci import Descriptor, Digest, Manifest, OciError, Platform, Tag, TagOrDigest
from moorage.registry.oci.values import dataclass

__all__ = ["Selection", "Wish", "is_there", "missing_tags", "select"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall be copied.

    Args:
        platform: takes one image out of an index; None copies whatever the reference names, indexes whole.
        tags: what shall name it at the destination.
        referrers: also copies signatures, SBOMs and whatever else refers to the image.
        foreign: also sends foreign layers, which otherwise stay at their vendor's.
        name: what people call the source; empty: the reference.
        names: the store, which knows names of the destination's registry and so where blobs can be mounted from.
    """

    reference: TagOrDigest
    tags: Sequence[Tag] = ()
    platform: Platform | None = None
    referrers: bool = False
    foreign: bool = False
    name: str = ""
    names: StoredNames | None = None

    def known(self, source: Place, destination: Place) -> Known:
        """Where the destination's registry may have blobs."""
        home = source.repository if source.registry is destination.registry else None
        return Known(destination, home, self.names)


@dataclass(frozen=True, slots=True)
class Selection:
    """``others``: those besides ``root``, in the order to write them; ``tagged``: tags that some of them have."""

    root: Manifest
    others: tuple[Manifest, ...]
    blobs: tuple[Descriptor, ...]
    left_out: tuple[Descriptor, ...]
    tagged: dict[Tag, Manifest]


async def select(source: Place, wish: Wish) -> Selection:
    """Reads every manifest that the copy needs.

    Raises:
        ManifestUnknown: the source has no such image.
        NoMatchingPlatform: its index has none for the platform.
        ImageError: the graph is deeper or larger than the limits, or incomplete.
    """
    root = await find_image(source, wish.reference, wish.platform)
    graph = await read_graph(source, root)
    attached = await read_attached(source, graph) if wish.referrers else None
    others = tuple(manifest for digest, manifest in graph.manifests.items() if digest != root.digest)
    foreign = graph.foreign if wish.foreign else {}
    left_out = tuple(layer for digest, layer in graph.foreign.items() if digest not in foreign)
    blobs = tuple({**graph.blobs, **foreign}.values())
    return Selection(root, others, blobs, left_out, attached.tagged if attached else {})


async def is_there(place: Place, reference: TagOrDigest, digest: Digest) -> bool:
    """Whether the place says that ``reference`` names the manifest ``digest``; what it does not say is not so."""
    try:
        return (await place.registry.resolve_manifest(place.repository, reference)).digest == digest
    except OciError:
        return False


async def missing_tags(place: Place, tags: Sequence[Tag], digest: Digest) -> list[Tag]:
    """Those of the tags that do not name the manifest ``digest`` yet."""
    return [tag for tag in tags if not await is_there(place, tag, digest)]
