"""What a copy did, and what it would do, as values."""

from __future__ import annotations

from typing import Literal

from moorage.registry.oci import Descriptor, Tag
from moorage.registry.oci.values import dataclass

__all__ = ["Action", "BlobResult", "CopyResult", "Plan", "PlannedBlob"]

Action = Literal["exists", "mounted", "moved"]


@dataclass(frozen=True, slots=True)
class BlobResult:
    """How a blob came to the destination. ``moved``: bytes; ``origin``: the repository it was mounted from."""

    descriptor: Descriptor
    action: Action
    moved: int = 0
    seconds: float = 0.0
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What the tags name at the destination now, and how everything below it came there.

    Args:
        descriptor: the image or index that was asked for.
        manifests: every manifest that is there now, children first, referrers behind them.
        left_out: foreign layers, which stay at their vendor's.
    """

    descriptor: Descriptor
    manifests: tuple[Descriptor, ...]
    blobs: tuple[BlobResult, ...]
    left_out: tuple[Descriptor, ...]
    seconds: float

    @property
    def moved(self) -> int:
        """Bytes of blobs that were moved."""
        return sum(blob.moved for blob in self.blobs)


@dataclass(frozen=True, slots=True)
class PlannedBlob:
    """What would become of a blob: nothing (``exists``), ``mount`` from ``origin``, or ``move``.

    ``held``: bytes of it that an earlier run brought, which are not moved again.
    """

    descriptor: Descriptor
    action: Literal["exists", "mount", "move"]
    origin: str | None = None
    held: int = 0

    @property
    def moved(self) -> int:
        """Bytes that would be moved."""
        return self.descriptor.size - self.held if self.action == "move" else 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a copy would do. ``manifests``: those that would be written; ``tags``: those that would change.

    A ``mount`` is what would be tried; where the registry refuses it, the blob is moved after all.
    """

    descriptor: Descriptor
    manifests: tuple[Descriptor, ...]
    blobs: tuple[PlannedBlob, ...]
    left_out: tuple[Descriptor, ...]
    tags: tuple[Tag, ...]

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(blob.descriptor.size for blob in self.blobs)

    @property
    def moved(self) -> int:
        """Bytes of blobs that would be moved."""
        return sum(blob.moved for blob in self.blobs)
