"""The records of a PAX extended header, and the values in them.

Law: a record's length, key and value are exactly what POSIX writes; the last of two equal keys counts, and an empty
value means that there is none. Values are raw bytes: capabilities are binary (rules 13, 15).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from moorage.puller.errors import BrokenLayer

__all__ = ["check_global", "decimal", "parse_records", "parse_time", "xattrs_of"]

_NANO = 1_000_000_000
_RECORD_LENGTH = re.compile(rb"([1-9][0-9]{0,6}) ")
_NUMBER = re.compile(rb"[0-9]{1,20}")
_TIME = re.compile(rb"(-?)([0-9]{1,12})(?:\.([0-9]{0,30}))?")
_SCHILY = b"SCHILY.xattr."
_LIBARCHIVE = b"LIBARCHIVE.xattr."
_RENAMING = (b"path", b"linkpath", b"size", b"SCHILY.realsize")
_SPARSE = b"GNU.sparse."
_SPARSE_PAIR = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_SPARSE_MAP = b"GNU.sparse.map"


def parse_records(body: bytes) -> dict[bytes, bytes]:
    """The records by key. GNU's pairs of sparse offsets and lengths, keys that repeat, become one ``GNU.sparse.map``.

    Raises:
        BrokenLayer: the header is damaged.
    """
    records: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    start = 0
    while start < len(body):
        match = _RECORD_LENGTH.match(body, start)
        end = start + int(match[1]) if match else start
        record = body[match.end() : end] if match else b""
        key, equals, value = record.partition(b"=")
        if end > len(body) or not record.endswith(b"\n") or not key or not equals or b"\0" in key:
            raise BrokenLayer("a damaged extended header")
        if key in _SPARSE_PAIR:
            if key != _SPARSE_PAIR[len(pairs) % 2]:
                raise BrokenLayer("a sparse map without order")
            pairs.append(value[:-1])
        else:
            records[key] = value[:-1]
        start = end
    if pairs:
        if _SPARSE_MAP in records:
            raise BrokenLayer("a file with two sparse maps")
        records[_SPARSE_MAP] = b",".join(pairs)
    return records


def check_global(records: Mapping[bytes, bytes]) -> None:
    """A header for all entries is ignored, as containerd does, unless another program could find other files by it.

    Raises:
        BrokenLayer: it renames or resizes entries.
    """
    if any(key in _RENAMING or key.startswith(_SPARSE) for key in records):
        raise BrokenLayer("a global header renames or resizes entries")


def decimal(raw: bytes) -> int:
    """A number in decimal digits.

    Raises:
        BrokenLayer: it is none, or beyond 63 bits.
    """
    if _NUMBER.fullmatch(raw) is None or int(raw) >= 2**63:
        raise BrokenLayer("an extended header with a number that is none")
    return int(raw)


def parse_time(raw: bytes) -> int:
    """Nanoseconds of a time in seconds; what is finer is cut off.

    Raises:
        BrokenLayer: it is none.
    """
    match = _TIME.fullmatch(raw)
    if match is None:
        raise BrokenLayer("an extended header with a time that is none")
    nanoseconds = int(match[2]) * _NANO + int((match[3] or b"").ljust(9, b"0")[:9])
    return -nanoseconds if match[1] else nanoseconds


def xattrs_of(records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The extended attributes, in star's and in libarchive's spelling.

    Raises:
        BrokenLayer: the two spellings disagree, or one cannot be decoded.
    """
    if not records:
        return {}
    found = {key[len(_SCHILY) :]: value for key, value in records.items() if key.startswith(_SCHILY)}
    for key, value in records.items():
        if key.startswith(_LIBARCHIVE):
            name, decoded = unquote_to_bytes(key[len(_LIBARCHIVE) :]), _decode(value)
            if found.setdefault(name, decoded) != decoded:
                raise BrokenLayer("an extended attribute with two values")
    if any(not name or b"\0" in name for name in found):
        raise BrokenLayer("an extended attribute without a usable name")
    return found


def _decode(value: bytes) -> bytes:
    """Base64, whose padding libarchive leaves out."""
    try:
        return base64.b64decode(value.rstrip(b"=") + b"=" * (-len(value.rstrip(b"=")) % 4), validate=True)
    except binascii.Error:
        raise BrokenLayer("an extended attribute that is no base64") from None
