"""How much a layer may ask for (reliability figures 5.2). Beyond any of these a layer is refused as a whole."""

from __future__ import annotations

from moorage.registry.oci.values import dataclass

__all__ = ["Limits"]

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are bytes. ``size`` of an uncompressed layer may also be ``ratio`` times its compressed size.

    ``entries``: also of the directories that are made because names imply them.
    """

    size: int = 20 * _GIB
    ratio: int = 200
    entries: int = 1_000_000
    image_size: int = 100 * _GIB
    image_entries: int = 2_000_000
    file: int = 64 * _GIB
    path: int = 4096
    component: int = 255
    depth: int = 256
    link: int = 4096
    header: int = 1024 * 1024
    xattrs: int = 64
    xattr_size: int = 64 * 1024

    def of_archive(self, compressed: int) -> int:
        """Most bytes that a layer of ``compressed`` bytes may become."""
        return max(self.size, self.ratio * compressed)
