"""Progress for programs: one JSON document per event, one per line on stdout."""

from __future__ import annotations

from moorage.puller.events import (
    BlobDone,
    BlobProgress,
    BlobSkipped,
    BlobStarted,
    Event,
    LayerUnpacked,
    ManifestDone,
    Resolved,
)
from moorage.puller.show.console import Silent, to_json

__all__ = ["JsonLines"]


class JsonLines(Silent):
    """One document per event on stdout; progress within a blob is left out."""

    def __call__(self, event: Event) -> None:
        match event:
            case Resolved(reference, descriptor, blobs, size):
                facts = {"reference": reference, "blobs": blobs, "total": size}
            case BlobSkipped(descriptor, reason):
                facts = {"reason": reason}
            case LayerUnpacked(descriptor, entries, size):
                facts = {"entries": entries, "unpacked": size}
            case BlobStarted(descriptor) | BlobDone(descriptor) | ManifestDone(descriptor):
                facts = {}
            case BlobProgress():
                return
        head = {"event": type(event).__name__, "digest": str(descriptor.digest), "size": descriptor.size}
        print(to_json({**head, **facts}), flush=True)
