"""What happens during a transfer, as values. Bars, plain lines and JSON lines render them; the engine never prints.

Law: ``OnEvent`` is called in the thread of the event loop, or of the caller where there is no loop. What moves in bulk
is summed up: at most about ten ``BlobProgress`` and ten ``UnpackProgress`` per second and blob.
A blob's life: Waiting* (BlobSkipped | BlobStarted Resumed? (BlobProgress | Retried | Waiting)* BlobDone); unpacking may
overlap it: UnpackProgress* LayerUnpacked. A layer that is already unpacked has no LayerUnpacked.
"""

from __future__ import annotations

from collections.abc import Callable

from moorage.registry.oci import Descriptor
from moorage.registry.oci.values import dataclass

__all__ = [
    "BlobDone",
    "BlobProgress",
    "BlobSkipped",
    "BlobStarted",
    "Event",
    "Finished",
    "LayerUnpacked",
    "ManifestDone",
    "OnEvent",
    "Packed",
    "Resolved",
    "Resumed",
    "Retried",
    "Times",
    "UnpackProgress",
    "Waiting",
    "Warned",
    "ignore",
]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that the parts of a transfer were busy, each summed over all threads; so together they may exceed the
    time on the clock, and the largest says what a faster machine should have more of.

    ``network``: waiting for and reading sockets; ``hash``: digests of blobs and layers; ``inflate``: decompressing;
    ``disk``: writing blobs, and creating and writing files.
    """

    network: float = 0.0
    hash: float = 0.0
    inflate: float = 0.0
    disk: float = 0.0

    def __add__(self, other: Times) -> Times:
        return Times(
            self.network + other.network,
            self.hash + other.hash,
            self.inflate + other.inflate,
            self.disk + other.disk,
        )


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that people should know before they trust the result: no encryption, a certificate not checked."""

    message: str


@dataclass(frozen=True, slots=True)
class Packed:
    """A directory became a layer. ``entries``, ``size``: of its archive; ``skipped``: what a layer cannot hold."""

    descriptor: Descriptor
    entries: int
    size: int
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolved:
    """What was asked for is this manifest. ``size``: bytes of all blobs below it that could have to move;
    ``content``: those blobs in the image's order, where the display should name those that wait, too.
    """

    reference: str
    descriptor: Descriptor
    blobs: int
    size: int
    content: tuple[Descriptor, ...] = ()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A blob cannot go on yet. ``reason``: for people, such as ``another process fetches it``."""

    descriptor: Descriptor
    reason: str


@dataclass(frozen=True, slots=True)
class BlobStarted:
    """A blob begins to move."""

    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class Resumed:
    """The first ``offset`` bytes of a blob were there already, from an earlier run or another process."""

    descriptor: Descriptor
    offset: int


@dataclass(frozen=True, slots=True)
class BlobProgress:
    """``size`` more bytes of a blob moved."""

    descriptor: Descriptor
    size: int


@dataclass(frozen=True, slots=True)
class Retried:
    """A part of a blob failed and is asked for again after ``delay`` seconds. ``error``: one line."""

    descriptor: Descriptor
    error: str
    delay: float


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
class UnpackProgress:
    """Unpacking read ``size`` more bytes of a layer's blob (so the blob's size is the total)."""

    descriptor: Descriptor
    size: int


@dataclass(frozen=True, slots=True)
class LayerUnpacked:
    """A layer was applied. ``entries``: of its archive; ``size``: bytes of the archive; ``seconds``: it took."""

    descriptor: Descriptor
    entries: int
    size: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ManifestDone:
    """A manifest, and all below it, is at the destination."""

    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class Finished:
    """All that was asked for is done. ``moved``: bytes over the network; ``seconds``: on the clock."""

    descriptor: Descriptor
    moved: int
    seconds: float
    times: Times


Event = (
    Warned
    | Packed
    | Resolved
    | Waiting
    | BlobStarted
    | Resumed
    | BlobProgress
    | Retried
    | BlobDone
    | BlobSkipped
    | UnpackProgress
    | LayerUnpacked
    | ManifestDone
    | Finished
)
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Takes an event and does nothing."""
