"""What a packer is asked for."""

from __future__ import annotations

import re
from typing import Final

from moorage.puller.errors import BadReference
from moorage.puller.pack.compression import Compression
from moorage.puller.pack.ignore import Ignore
from moorage.registry.oci.values import dataclass, field

__all__ = ["AS_ON_DISK", "AsOnDisk", "PackOptions", "parse_owner"]

_OWNER = re.compile(r"([0-9]{1,10}):([0-9]{1,10})")
_MAX_ID = 2**32 - 2  # the kernel's -1 means "leave it"


@dataclass(frozen=True, slots=True)
class AsOnDisk:
    """Owners are those of the files."""


AS_ON_DISK: Final = AsOnDisk()


@dataclass(frozen=True, slots=True)
class PackOptions:
    """How a directory is packed.

    ``owner``: everybody's uid and gid; or as on the disk; or None: what ``unpack --owner record`` noted, else 0:0, so
    that it does not matter who packs. Noted owners count for ``AS_ON_DISK`` too.
    ``ignore``: what is left out.
    """

    compression: Compression = field(default_factory=Compression)
    owner: tuple[int, int] | AsOnDisk | None = None
    ignore: Ignore = field(default_factory=Ignore)


def parse_owner(text: str) -> tuple[int, int] | AsOnDisk:
    """``UID:GID`` in numbers, or ``keep``.

    Raises:
        BadReference: it is not well written.
    """
    if text == "keep":
        return AS_ON_DISK
    match = _OWNER.fullmatch(text)
    if match is None or max(owner := (int(match[1]), int(match[2]))) > _MAX_ID:
        raise BadReference(f"{text}: an owner is UID:GID in numbers, or keep; names mean nothing in another image")
    return owner
