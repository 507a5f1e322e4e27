"""To whom the files of an image are given.

Law: owners are numbers (rule 12: names mean nothing). ``keep`` gives a file the owner that the image names, as far as
our rights allow; ``squash`` leaves all to the caller; ``record`` does too, and writes the image's owner beside it, in
the attribute ``user.rootlesscontainers`` as umoci does, so that packing the tree again restores it.
"""

from __future__ import annotations

import os
import re
from enum import Enum

__all__ = ["ROOTLESS", "OwnerMode", "decode_owner", "default_owners", "encode_owner", "has_all_rights"]

ROOTLESS = b"user.rootlesscontainers"
_FIELD = re.compile(rb"([\x08\x10])([\x80-\xff]{0,9}[\x00-\x7f])", re.DOTALL)
_ROOTS = 2**32 - 1
"""umoci writes "no other owner" where the image says 0."""

_NEEDED = (0, 1, 3, 21, 27, 31)
"""CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_SYS_ADMIN, CAP_MKNOD, CAP_SETFCAP (linux/capability.h)."""


class OwnerMode(Enum):
    """Whose the files become."""

    KEEP = "keep"
    SQUASH = "squash"
    RECORD = "record"


def default_owners() -> OwnerMode:
    """Root keeps owners; others own what they unpack."""
    return OwnerMode.KEEP if os.geteuid() == 0 else OwnerMode.SQUASH


def encode_owner(uid: int, gid: int) -> bytes:
    """The value of ``user.rootlesscontainers``: a protobuf message of two numbers; 2^32-1 stands for root's."""
    return b"".join(bytes((field << 3,)) + _varint(value or _ROOTS) for field, value in ((1, uid), (2, gid)))


def decode_owner(raw: bytes) -> tuple[int, int] | None:
    """The owner that ``encode_owner`` or umoci wrote, 0 where it names none; None if it is not of that form."""
    numbers = {1: 0, 2: 0}
    for match in _FIELD.finditer(raw):
        number = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(match[2]))
        numbers[match[1][0] >> 3] = 0 if number == _ROOTS else number
    if _FIELD.sub(b"", raw) or max(numbers.values()) > _ROOTS:
        return None
    return numbers[1], numbers[2]


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*groups, value))


def has_all_rights() -> bool:
    """Whether we are root, on the machine itself, with all that unpacking needs: then a refusal is an error."""
    if os.geteuid() != 0:
        return False
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            effective = next((line for line in status if line.startswith("CapEff:")), "CapEff: 0")
        with open("/proc/self/uid_map", encoding="ascii") as uid_map:
            is_whole = uid_map.read().split() == ["0", "0", "4294967295"]
    except OSError:
        return False
    granted = int(effective.split()[1], 16)
    return is_whole and all(granted >> capability & 1 for capability in _NEEDED)
