"""A layer to unpack, and what came of it, as values."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from moorage.puller.events import Times
from moorage.registry.oci import Descriptor, Digest
from moorage.registry.oci.values import dataclass, field

__all__ = ["Layer", "OnLayer", "Unpacked"]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer to apply. ``open``: its blob's bytes, which may still be arriving; it is called, and the file read and
    closed, in another thread. ``diff_id``: the digest of its uncompressed archive."""

    descriptor: Descriptor
    diff_id: Digest
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was read: entries and bytes of the uncompressed archives. ``skipped``: what our rights did not allow.

    ``seconds``: on the clock; ``times``: where they went.
    """

    entries: int
    size: int
    skipped: tuple[str, ...] = ()
    seconds: float = 0.0
    times: Times = field(default_factory=Times)


OnLayer = Callable[[Layer, Unpacked], None]
