"""What refers to an image: signatures, SBOMs, attestations, found in the three ways in which people attach them.

    the referrers API                         (distribution-spec "Listing Referrers"), with its stand-in tag
    <alg>-<hex>                               that tag itself, where a registry has both: older content is only there
    <alg>-<hex>.sig  .att  .sbom              cosign's tags

Law: what refers to a referrer belongs to the image too. A referrer that cannot be read is an error, not left out.
"""

from __future__ import annotations

from collections.abc import Iterable

from moorage.puller.errors import ImageError
from moorage.puller.referrers_tag import tag_of
from moorage.puller.transfer.crowd import for_each
from moorage.puller.transfer.graph import MAX_DESCRIPTORS, Graph, Place, read_graph
from moorage.registry.oci import MAX_TAG, Digest, Manifest, NotFound, OciError, Tag
from moorage.registry.oci.media_types import INDEX_TYPES
from moorage.registry.oci.values import dataclass, field

__all__ = ["Attached", "read_attached"]

_COSIGN = (".sig", ".att", ".sbom")
_PARALLEL = 8


@dataclass(slots=True)
class Attached:
    """Manifests found by a tag of their own; those found as referrers are in the graph only."""

    tagged: dict[Tag, Manifest] = field(default_factory=dict)


async def read_attached(source: Place, graph: Graph) -> Attached:
    """Adds all that refers to a manifest of the graph to the graph.

    Raises:
        ImageError: there is more than the limits of a graph allow.
    """
    attached, done = Attached(), set[Digest]()
    while waiting := [digest for digest in graph.manifests if digest not in done]:
        done.update(waiting)
        if len(done) > MAX_DESCRIPTORS:
            raise ImageError(f"more than {MAX_DESCRIPTORS} manifests refer to one another")
        for found in await for_each(waiting, lambda digest: _referrers(source, digest), limit=_PARALLEL):
            for manifest in found:
                await read_graph(source, manifest, graph)
        for tagged in await for_each(waiting, lambda digest: _tagged(source, digest), limit=_PARALLEL):
            for tag, manifest in tagged.items():
                await read_graph(source, manifest, graph)
                attached.tagged[tag] = manifest
    return attached


async def _referrers(source: Place, subject: Digest) -> list[Manifest]:
    registry, repository = source.registry, source.repository
    digests = {referrer.digest async for referrer in registry.list_referrers(repository, subject)}
    stand_in = await _read_tag(source, tag_of(subject))
    if stand_in is not None and stand_in.media_type in INDEX_TYPES:
        digests.update(entry.digest for entry in stand_in.document.manifests)
    return [await registry.read_manifest(repository, digest) for digest in sorted(digests, key=str)]


async def _tagged(source: Place, subject: Digest) -> dict[Tag, Manifest]:
    found = {}
    for tag in _cosign_tags(subject):
        if (manifest := await _read_tag(source, tag)) is not None:
            found[tag] = manifest
    return found


def _cosign_tags(subject: Digest) -> Iterable[Tag]:
    base = f"{subject.algorithm}-{subject.hex}"
    return [Tag(base + end) for end in _COSIGN if len(base + end) <= MAX_TAG]


async def _read_tag(source: Place, tag: Tag) -> Manifest | None:
    try:
        await source.registry.resolve_manifest(source.repository, tag)  # HEAD: a miss costs a registry nothing
    except NotFound:
        return None
    except OciError as exc:
        if exc.status == NotFound.status:
            return None
        raise
    return await source.registry.read_manifest(source.repository, tag)
