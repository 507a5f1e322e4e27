"""Entries of a layer's archive, as values: what the packer writes and the unpacker reads.

Rule: names and link targets are bytes, as the kernel has them; nothing is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from moorage.registry.oci.values import dataclass, field

__all__ = ["BLOCK", "Entry", "Kind", "padding"]

BLOCK = 512
"""Bytes of a block of an archive."""


class Kind(Enum):
    """What an entry is; the value is its type flag in the archive."""

    FILE = b"0"
    HARD_LINK = b"1"
    SYMLINK = b"2"
    CHARACTER_DEVICE = b"3"
    BLOCK_DEVICE = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. ``mode``: up to 0o7777; ``mtime``: ns of Unix time; ``size``: bytes of the file.

    ``link``: the target of a link; a hard link's is the name of another entry. ``extents``: offset and length of the
    stretches of a sparse file whose bytes follow, in order; None: all bytes follow.
    """

    name: bytes
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    extents: tuple[tuple[int, int], ...] | None = None


def padding(size: int) -> int:
    """Bytes that fill ``size`` bytes up to whole blocks."""
    return -size % BLOCK
