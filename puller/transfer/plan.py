"""What a copy would do.

Law: nothing but reading. A plan writes no blob, opens no upload and tries no mount; it may be wrong where a registry
refuses a mount that looked possible, and by whatever changes before the copy.
"""

from __future__ import annotations

from moorage.puller.events import ignore
from moorage.puller.transfer.carry import Carrier
from moorage.puller.transfer.crowd import for_each
from moorage.puller.transfer.graph import Place
from moorage.puller.transfer.results import Plan, PlannedBlob
from moorage.puller.transfer.selection import Wish, is_there, missing_tags, select
from moorage.registry.oci import Descriptor, Manifest

__all__ = ["plan_copy"]

_PARALLEL = 16


async def plan_copy(source: Place, wish: Wish, destination: Place) -> Plan:
    """What ``copy_image`` with the same arguments would do.

    Raises:
        OciError, ImageError: as ``copy_image``, as far as reading meets it.
    """
    selection = await select(source, wish)
    carrier = Carrier(source, destination, wish.known(source, destination), ignore)

    async def foresee(blob: Descriptor) -> PlannedBlob:
        if await carrier.exists(blob):
            return PlannedBlob(blob, "exists")
        homes = await carrier.known.homes(blob.digest)
        return PlannedBlob(blob, "mount", str(homes[0])) if homes else PlannedBlob(blob, "move")

    async def is_missing(manifest: Manifest) -> bool:
        return not await is_there(destination, manifest.digest, manifest.digest)

    blobs = await for_each(selection.blobs, foresee, limit=_PARALLEL)
    manifests = (*selection.others, selection.root)
    missing = await for_each(manifests, is_missing, limit=_PARALLEL)
    return Plan(
        selection.root.descriptor,
        tuple(m.descriptor for m, is_new in zip(manifests, missing, strict=True) if is_new),
        tuple(blobs),
        selection.left_out,
        tuple(await missing_tags(destination, wish.tags, selection.root.digest)),
    )
