"""Progress for programs: one JSON document per event, one per line on stdout. Progress within a blob is left out."""

from __future__ import annotations

from typing import Any

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
    Times,
    UnpackProgress,
    Waiting,
    Warned,
)
from moorage.puller.show.console import Silent, to_json

__all__ = ["JsonLines", "times_to_json"]


class JsonLines(Silent):
    """A ``Display`` for programs."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, BlobProgress | UnpackProgress):
            return
        print(to_json({"event": type(event).__name__, **_about(event), **_facts(event)}), flush=True)


def _about(event: Event) -> dict[str, Any]:
    """Of which blob or manifest it tells."""
    if isinstance(event, Warned):
        return {}
    return {"digest": str(event.descriptor.digest), "size": event.descriptor.size}


def times_to_json(times: Times) -> dict[str, float]:
    """Seconds by part, to the millisecond."""
    parts = {"network": times.network, "hash": times.hash, "inflate": times.inflate, "disk": times.disk}
    return {name: round(seconds, 3) for name, seconds in parts.items()}


def _facts(event: Event) -> dict[str, Any]:
    """What an event tells besides its blob."""
    match event:
        case Resolved(reference, _, blobs, size, _):
            return {"reference": reference, "blobs": blobs, "total": size}
        case Waiting(_, reason) | BlobSkipped(_, reason):
            return {"reason": reason}
        case Resumed(_, offset):
            return {"offset": offset}
        case Retried(_, error, delay):
            return {"error": error, "delay": round(delay, 3)}
        case LayerUnpacked(_, entries, size, seconds):
            return {"entries": entries, "unpacked": size, "seconds": round(seconds, 3)}
        case Finished(_, moved, seconds, times):
            return {"moved": moved, "seconds": round(seconds, 3), "times": times_to_json(times)}
        case Packed(_, entries, size, skipped):
            return {"entries": entries, "packed": size, "skipped": list(skipped)}
        case Warned(message):
            return {"message": message}
        case BlobStarted() | BlobDone() | ManifestDone() | BlobProgress() | UnpackProgress():
            return {}
