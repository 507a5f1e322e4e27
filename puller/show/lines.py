"""Progress as plain lines, for logs: one for each thing that began or finished, no control characters."""

from __future__ import annotations

import time

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
from moorage.puller.show.console import Silent, say
from moorage.puller.show.text import human_size, short_digest

__all__ = ["PlainLines"]


class PlainLines(Silent):
    """A line for what begins and ends; nothing in between, for logs."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Resolved(reference, descriptor, blobs, size):
                name = "" if reference == str(descriptor.digest) else f"{reference} is "
                say(f"{name}{descriptor.digest}: {blobs} blobs, {human_size(size)}")
            case BlobStarted(blob):
                self._started[str(blob.digest)] = time.monotonic()
            case BlobDone(blob):
                seconds = time.monotonic() - self._started.pop(str(blob.digest))
                say(f"{short_digest(blob.digest)}  copied {human_size(blob.size)} in {seconds:.1f} s")
            case BlobSkipped(blob, reason):
                say(f"{short_digest(blob.digest)}  {reason}, {human_size(blob.size)}")
            case LayerUnpacked(layer, entries, size):
                say(f"{short_digest(layer.digest)}  unpacked {entries} entries, {human_size(size)}")
            case ManifestDone() | BlobProgress():
                return
