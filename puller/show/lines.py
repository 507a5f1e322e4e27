"""Progress as plain lines, for logs: one for each thing that began or finished, no control characters."""

from __future__ import annotations

import time

from moorage.puller.events import (
    BlobDone,
    BlobProgress,
    BlobSkipped,
    BlobStarted,
    Event,
    Finished,
    LayerUnpacked,
    ManifestDone,
    Packed,
    Resolved,
    Resumed,
    Retried,
    UnpackProgress,
    Waiting,
    Warned,
)
from moorage.puller.show.console import Silent, say
from moorage.puller.show.text import (
    counted,
    finished_line,
    human_rate,
    human_seconds,
    human_size,
    packed_lines,
    short_digest,
)
from moorage.registry.oci import Descriptor

__all__ = ["PlainLines"]


class PlainLines(Silent):
    """A ``Display`` for logs. ``moving``: what is done to a blob until it is there."""

    def __init__(self, *, moving: str = "copying") -> None:
        self._moving = moving
        self._started: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, BlobProgress | UnpackProgress | ManifestDone):
            return
        if isinstance(event, Resolved):
            name = "" if event.reference == str(event.descriptor.digest) else f"{event.reference} is "
            say(f"{name}{event.descriptor.digest}: {counted(event.blobs, 'blob', 'blobs')}, {human_size(event.size)}")
        elif isinstance(event, Finished):
            say(finished_line(event))
        elif isinstance(event, Warned):
            say(f"warning: {event.message}")
        elif isinstance(event, Packed):
            for line in packed_lines(event):
                say(line)
        else:
            say(f"{short_digest(event.descriptor.digest)}  {self._tell(event)}")

    def _tell(self, event: Waiting | BlobStarted | Resumed | Retried | BlobDone | BlobSkipped | LayerUnpacked) -> str:
        match event:
            case BlobStarted(blob):
                self._started[str(blob.digest)] = time.monotonic()
                return f"{self._moving} {human_size(blob.size)}"
            case BlobDone(blob):
                return f"done, {human_size(blob.size)}{self._pace(blob)}"
            case Waiting(_, reason):
                return f"waiting: {reason}"
            case Resumed(blob, offset):
                return f"goes on after {human_size(offset)} of {human_size(blob.size)}"
            case Retried(_, error, delay):
                return f"again in {human_seconds(delay)}: {error}"
            case BlobSkipped(blob, reason):
                return f"{reason}, {human_size(blob.size)}"
            case LayerUnpacked(_, entries, size, seconds):
                took = f" in {human_seconds(seconds)}" if seconds else ""
                return f"unpacked {counted(entries, 'entry', 'entries')}, {human_size(size)}{took}"

    def _pace(self, blob: Descriptor) -> str:
        began = self._started.pop(str(blob.digest), None)
        if began is None:
            return ""
        seconds = time.monotonic() - began
        return f" in {human_seconds(seconds)}, {human_rate(blob.size, seconds)}"
