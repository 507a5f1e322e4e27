"""Maps of sparse files: where in a file the stored bytes lie.

Law: GNU's four forms are read (old type ``S``; PAX 0.0, 0.1, 1.0), each to the letter of GNU tar's manual. Extents are
in order, do not overlap, end within the file, and are together exactly the stored bytes, because programs that tolerate
other maps give other files (rules 15, 16).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise

from moorage.puller.entries import BLOCK
from moorage.puller.errors import BrokenLayer, UnsafeLayer
from moorage.puller.unpack.header import GNU_MAGIC, number
from moorage.puller.unpack.pax import decimal

__all__ = ["Extents", "checked", "is_sparse", "read_old_map", "read_stored_map", "record_map", "version_of"]

Extents = tuple[tuple[int, int], ...]
"""Offset and length of each stretch of stored bytes."""

_PREFIX = b"GNU.sparse."
_PAIR = 24
_KNOWN = frozenset(_PREFIX + key for key in (b"major", b"minor", b"name", b"realsize", b"size", b"numblocks", b"map"))
_LINE = re.compile(rb"([0-9]{1,19})\n")


def is_sparse(records: Mapping[bytes, bytes]) -> bool:
    """Whether extended records describe a sparse file."""
    return any(key.startswith(_PREFIX) for key in records)


def version_of(records: Mapping[bytes, bytes]) -> tuple[int, int]:
    """The form of the map: (0, 0), which also stands for (0, 1), or (1, 0).

    Raises:
        BrokenLayer: it is another, or its records do not belong together.
    """
    keys = {key for key in records if key.startswith(_PREFIX)}
    if not keys <= _KNOWN:
        raise BrokenLayer("a sparse file with unknown records")
    version = records.get(_PREFIX + b"major", b"0"), records.get(_PREFIX + b"minor", b"0")
    has_map = _PREFIX + b"map" in keys
    if version == (b"1", b"0") and not has_map and _PREFIX + b"realsize" in keys:
        return 1, 0
    if version in ((b"0", b"0"), (b"0", b"1")) and has_map and {_PREFIX + b"size", _PREFIX + b"numblocks"} <= keys:
        return 0, 0
    raise BrokenLayer("a sparse file of an unknown form")


def record_map(records: Mapping[bytes, bytes]) -> Extents:
    """The map that stands in the records themselves.

    Raises:
        BrokenLayer: it is damaged.
    """
    raw = records[_PREFIX + b"map"]
    numbers = [decimal(part) for part in raw.split(b",")] if raw else []
    extents = _paired(numbers)
    if decimal(records[_PREFIX + b"numblocks"]) != len(extents):
        raise BrokenLayer("a sparse map of another length")
    return extents


def read_old_map(block: bytes, next_block: Callable[[], bytes], *, limit: int) -> tuple[Extents, int]:
    """The map in and behind a header of type ``S``, and the file's size. ``limit``: bytes of further blocks.

    Raises:
        BrokenLayer: it is damaged, or ends where another program would read on.
        UnsafeLayer: it is beyond the limit.
    """
    if block[257:265] != GNU_MAGIC:
        raise BrokenLayer("a sparse file in an archive that is not GNU's")
    size = number(block[483:495])
    numbers, is_open = _read_pairs(block[386:482])
    extended, read = block[482], 0
    while extended:
        read += BLOCK
        if not is_open:
            raise BrokenLayer("a sparse map that goes on after its end")
        if read > limit:
            raise UnsafeLayer(f"a sparse map of more than {limit} bytes")
        further = next_block()
        more, is_open = _read_pairs(further[:504])
        numbers += more
        extended = further[504]
    return _paired(numbers), size


def _read_pairs(raw: bytes) -> tuple[list[int], bool]:
    """The numbers of the pairs up to the first empty one; whether there was none. Behind it nothing may stand."""
    numbers: list[int] = []
    for start in range(0, len(raw), _PAIR):
        pair = raw[start : start + _PAIR]
        if not pair[0] or not pair[12]:
            if any(raw[start:]):
                raise BrokenLayer("a sparse map that goes on after its end")
            return numbers, False
        numbers += number(pair[:12]), number(pair[12:])
    return numbers, True


def read_stored_map(next_block: Callable[[], bytes], *, limit: int) -> tuple[Extents, int]:
    """The map at the head of the stored bytes (form 1.0), and the bytes it takes there. ``limit``: most of these.

    Raises:
        BrokenLayer: it is damaged.
        UnsafeLayer: it is beyond the limit.
    """
    raw, position, wanted = bytearray(), 0, 1
    numbers: list[int] = []
    while len(numbers) < wanted:
        match = _LINE.match(raw, position)
        if match is None:
            if len(raw) - position > 20:
                raise BrokenLayer("a sparse map with a number that is none")
            if len(raw) >= limit:
                raise UnsafeLayer(f"a sparse map of more than {limit} bytes")
            raw += next_block()
            continue
        position = match.end()
        numbers.append(decimal(match[1]))
        wanted = 1 + 2 * numbers[0]
        if 2 * wanted > limit:  # a digit and a newline for each
            raise UnsafeLayer(f"a sparse map of more than {limit} bytes")
    if any(raw[position:]):
        raise BrokenLayer("a sparse map that goes on after its end")
    return _paired(numbers[1:]), len(raw)


def _paired(numbers: list[int]) -> Extents:
    if len(numbers) % 2:
        raise BrokenLayer("a sparse map with half a pair")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def checked(extents: Extents, *, size: int, stored: int) -> Extents:
    """The map without its empty extents, held to the file's ``size`` and the bytes ``stored``.

    Raises:
        BrokenLayer: it does not fit them.
    """
    if any(offset + length > size for offset, length in extents):
        raise BrokenLayer("a sparse file with bytes beyond its end")
    if size and (not extents or sum(extents[-1]) != size):
        # Writers name the end by an empty extent; where they do not, GNU tar's file ends with the last stored byte.
        raise BrokenLayer("a sparse map that does not reach the end of the file")
    if any(one + length > two for (one, length), (two, _) in pairwise(extents)):
        raise BrokenLayer("a sparse map without order")
    if sum(length for _, length in extents) != stored:
        raise BrokenLayer("a sparse map of other bytes than are stored")
    full = tuple(extent for extent in extents if extent[1])
    if any(length % BLOCK for _, length in full[:-1]):
        # GNU tar begins each extent at a new block: it would read other content here, and other entries behind it.
        raise BrokenLayer("a sparse map whose extents are not whole blocks")
    return full
