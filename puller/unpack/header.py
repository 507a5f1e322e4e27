"""Fields of an archive's 512-byte header blocks.

Law: strict. A number is octal digits or GNU's binary form, a checksum is right, and where two dialects put different
things at one place the magic decides; what tar programs could read differently is refused (rules 15, 16, U8).
"""

from __future__ import annotations

import re
import zlib

from moorage.puller.entries import BLOCK
from moorage.puller.errors import BrokenLayer

__all__ = ["GNU_MAGIC", "ZEROS", "check_sum", "number", "short_name", "text"]

ZEROS = bytes(BLOCK)
GNU_MAGIC = b"ustar  \0"
_POSIX_MAGIC = b"ustar\0"
_STAR_TRAILER = b"tar\0"
_STAR_PREFIX = 131
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_HALF = BLOCK // 2


def check_sum(block: bytes) -> None:
    """Holds the block to its checksum, in which the checksum's own field counts as spaces.

    Raises:
        BrokenLayer: it is another.
    """
    # Adler-32 holds the sum of up to 256 bytes, plus one, in its low half: many times faster than sum().
    total = (zlib.adler32(block[:_HALF]) & 0xFFFF) + (zlib.adler32(block[_HALF:]) & 0xFFFF) - 2
    if number(block[148:156]) != total - sum(block[148:156]) + 8 * 0x20:
        raise BrokenLayer("an archive header with a wrong checksum")


def number(raw: bytes, *, signed: bool = False) -> int:
    """A numeric field: octal text, or binary where its first bit is set.

    Raises:
        BrokenLayer: it is neither, or beyond 63 bits, or negative though not ``signed``.
    """
    digits = raw[:-1]
    if digits.isdigit() and raw[-1] in b"\0 ":  # what nearly all writers write; the general way takes thrice as long
        try:
            return int(digits, 8)
        except ValueError:
            raise BrokenLayer("an archive header with a number that is none") from None
    if raw[0] & 0x80:
        value = (
            int.from_bytes(raw, "big", signed=True)
            if raw[0] == 0xFF
            else int.from_bytes(raw, "big") & ~(0x80 << 8 * (len(raw) - 1))
        )
    else:
        match = _OCTAL.fullmatch(raw)
        if match is None:
            raise BrokenLayer("an archive header with a number that is none")
        value = int(match[1] or b"0", 8)
    if (value < 0 and not signed) or abs(value) >= 2**63:
        raise BrokenLayer("an archive header with a number out of range")
    return value


def text(raw: bytes) -> bytes:
    """A field of text, up to its NUL."""
    return raw.partition(b"\0")[0]


def short_name(block: bytes) -> bytes:
    """The name that the block itself has room for.

    Raises:
        BrokenLayer: star's times stand where others read on in the name.
    """
    name, prefix = text(block[:100]), text(block[345:500])
    if not prefix or block[257:263] != _POSIX_MAGIC:  # GNU's own format keeps other things there
        return name
    if block[508:512] == _STAR_TRAILER and len(prefix) > _STAR_PREFIX:
        raise BrokenLayer("a name that star and others read differently")
    return prefix + b"/" + name
