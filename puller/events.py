"""What happens during a transfer, as values. Bars, plain lines and JSON lines render them; the engine never prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moorage.registry.oci import Descriptor

__all__ = [
    "BlobDone",
    "BlobProgress",
    "BlobSkipped",
    "BlobStarted",
    "Event",
    "LayerUnpacked",
    "ManifestDone",
    "OnEvent",
    "Resolved",
    "ignore",
]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What was asked for is this manifest. ``size``: bytes of all blobs below it that could have to move."""

    reference: str
    descriptor: Descriptor
    blobs: int
    size: int


@dataclass(frozen=True, slots=True)
class BlobStarted:
    """A blob begins to move."""

    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class BlobProgress:
    """``size`` more bytes of a blob moved."""

    descriptor: Descriptor
    size: int


@dataclass(frozen=True, slots=True)
class BlobDone:
    """A blob moved; the destination has verified it."""

    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class BlobSkipped:
    """A blob needed not move. ``reason``: ``exists`` or ``mounted``."""

    descriptor: Descriptor
    reason: str


@dataclass(frozen=True, slots=True)
class ManifestDone:
    """A manifest, and all below it, is at the destination."""

    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class LayerUnpacked:
    """A layer was applied. ``entries``: of its archive; ``size``: bytes of the archive."""

    descriptor: Descriptor
    entries: int
    size: int


Event = Resolved | BlobStarted | BlobProgress | BlobDone | BlobSkipped | ManifestDone | LayerUnpacked
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Takes an event and does nothing."""
