"""What a plan says, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moorage.puller.show.text import counted, human_size, short_digest
from moorage.puller.transfer.results import Plan, PlannedBlob

__all__ = ["plan_lines", "plan_to_json"]


def plan_lines(plan: Plan, *, move: str) -> list[str]:
    """A line per blob, and the sum. ``move``: what moving a blob is called, such as ``fetch``."""
    return [*_lines(plan, move)]


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The same as one document."""
    return {
        "event": "Planned",
        "digest": str(plan.descriptor.digest),
        "mediaType": plan.descriptor.media_type,
        "size": plan.size,
        "moved": plan.moved,
        "manifests": [str(manifest.digest) for manifest in plan.manifests],
        "tags": [str(tag) for tag in plan.tags],
        "blobs": [_blob_to_json(blob) for blob in plan.blobs],
        "leftOut": [str(layer.digest) for layer in plan.left_out],
    }


def _lines(plan: Plan, move: str) -> Iterator[str]:
    for blob in plan.blobs:
        what = {"exists": "is there", "mount": f"mount from {blob.origin}", "move": move}[blob.action]
        what += f", all but {human_size(blob.held)}" if blob.held else ""
        yield f"{short_digest(blob.descriptor.digest)}  {human_size(blob.descriptor.size):>9}  {what}"
    for layer in plan.left_out:
        yield f"{short_digest(layer.digest)}  {human_size(layer.size):>9}  stays at its vendor's"
    moving = sum(blob.action == "move" for blob in plan.blobs)
    yield f"would {move} {human_size(plan.moved)} of {human_size(plan.size)}, {moving} of {len(plan.blobs)} blobs"
    tags = f", set the tag {', '.join(map(str, plan.tags))}" if plan.tags else ""
    yield f"would write {counted(len(plan.manifests), 'manifest', 'manifests')}{tags}"


def _blob_to_json(blob: PlannedBlob) -> dict[str, Any]:
    origin = {"origin": blob.origin} if blob.origin else {}
    held = {"held": blob.held} if blob.held else {}
    return {
        "digest": str(blob.descriptor.digest),
        "size": blob.descriptor.size,
        "action": blob.action,
        **origin,
        **held,
    }
