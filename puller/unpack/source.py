"""Reads the archive of a layer as a stream of entries.

Law: one reading or none. Where tar programs could understand a header differently (sizes, names given twice, sparse
maps, types of one vendor) the layer is refused, so what a scanner saw is what is unpacked (rules U8, 16). A PAX size
belongs to the next real entry, never to a header in between. Nothing is allocated because a header says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from moorage.puller.entries import BLOCK, Entry, Kind, padding
from moorage.puller.errors import BrokenLayer, UnsafeLayer
from moorage.puller.unpack.limits import Limits

__all__ = ["TarReader"]

_KINDS = {kind.value: kind for kind in Kind} | {b"\0": Kind.FILE, b"7": Kind.FILE}
_ZEROS = bytes(BLOCK)
_NANO = 1_000_000_000
_MAX_ID = 2**32 - 2
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_RECORD_LENGTH = re.compile(rb"([1-9][0-9]{0,6}) ")
_NUMBER = re.compile(rb"[0-9]{1,20}")
_TIME = re.compile(rb"(-?)([0-9]{1,12})(?:\.([0-9]{0,30}))?")
_XATTR = b"SCHILY.xattr."
_RENAMING = (b"path", b"linkpath", b"size")


class _Blocks:
    """Cuts a stream of chunks into the pieces that the format asks for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._view = memoryview(b"")

    def take(self, size: int) -> bytes:
        """Exactly ``size`` bytes, or none at the end of the stream."""
        if len(self._view) >= size:
            taken = bytes(self._view[:size])
            self._view = self._view[size:]
            return taken
        parts = [bytes(piece) for piece in self.pieces(size, may_end=True)]
        return b"".join(parts)

    def pieces(self, size: int, *, may_end: bool = False) -> Iterator[memoryview]:
        """The next ``size`` bytes, as they lie."""
        left = size
        while left:
            if not self._view:
                chunk = next(self._chunks, b"")
                if not chunk:
                    if may_end and left == size:
                        return
                    raise BrokenLayer("the archive is cut short")
                self._view = memoryview(chunk)
                continue
            piece, self._view = self._view[:left], self._view[left:]
            left -= len(piece)
            yield piece

    def check_rest_is_zero(self) -> None:
        """Reads to the end of the stream."""
        rest = self._view
        while rest:
            if any(rest):
                raise BrokenLayer("the archive goes on after its end")
            rest = memoryview(next(self._chunks, b""))


@dataclass(slots=True)
class _Pending:
    """What the headers before an entry say about it."""

    pax: dict[bytes, bytes] = field(default_factory=dict)
    name: bytes | None = None
    link: bytes | None = None
    seen: set[bytes] = field(default_factory=set)


class TarReader:
    """Iterate it for the entries; after a file's entry, ``data`` gives its content, which may be left unread.

    Raises:
        BrokenLayer: the archive is damaged or ambiguous.
        UnsafeLayer: it is beyond a limit.
    """

    def __init__(self, chunks: Iterator[bytes], limits: Limits | None = None) -> None:
        self._blocks = _Blocks(chunks)
        self._limits = limits or Limits()
        self._unread = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        pending, count = _Pending(), 0
        while (block := self._next_header()) is not None:
            flag = block[156:157]
            if flag in b"xgLK":
                self._read_extension(block, flag, pending)
                continue
            entry = self._finish(block, flag, pending)
            pending, count = _Pending(), count + 1
            if count > self._limits.entries:
                raise UnsafeLayer(f"more than {self._limits.entries} entries")
            self._unread, self._padding = entry.size, padding(entry.size)
            yield entry
        if pending.seen:
            raise BrokenLayer("the archive ends after a header that describes an entry")

    def data(self) -> Iterator[memoryview]:
        """The rest of the current entry's content."""
        while self._unread:
            for piece in self._blocks.pieces(self._unread):
                self._unread -= len(piece)
                yield piece

    def _next_header(self) -> bytes | None:
        for _ in self.data():
            pass
        if len(self._blocks.take(self._padding)) != self._padding:
            raise BrokenLayer("the archive is cut short")
        self._padding = 0
        block = self._blocks.take(BLOCK)
        if block and block != _ZEROS:
            _check_sum(block)
            return block
        # Writers end with two zero blocks, one, or none; that all is there is what the diffID proves.
        if block and self._blocks.take(BLOCK) not in (b"", _ZEROS):
            raise BrokenLayer("a lone zero block in the archive")
        self._blocks.check_rest_is_zero()
        return None

    def _read_extension(self, block: bytes, flag: bytes, pending: _Pending) -> None:
        if flag in pending.seen:
            raise BrokenLayer("two headers of one kind describe one entry")
        size = _number(block[124:136])
        if size > self._limits.header:
            raise UnsafeLayer(f"an extended header of {size} bytes")
        body = self._blocks.take(size)
        if len(body) != size or len(self._blocks.take(padding(size))) != padding(size):
            raise BrokenLayer("the archive is cut short")
        if flag == b"g":
            if any(key in _RENAMING for key in _parse_pax(body)):
                raise BrokenLayer("a global header renames or resizes entries")
            return
        pending.seen.add(flag)
        if flag == b"x":
            pending.pax = _parse_pax(body)
        elif flag == b"L":
            pending.name = body.rstrip(b"\0")
        else:
            pending.link = body.rstrip(b"\0")

    def _finish(self, block: bytes, flag: bytes, pending: _Pending) -> Entry:
        kind = _KINDS.get(flag)
        if kind is None:
            raise BrokenLayer(f"an entry of unsupported type {flag!r}")
        pax = pending.pax
        name = _agreed(pax.get(b"path"), pending.name) or _short_name(block)
        if kind is Kind.FILE and name.endswith(b"/"):
            if flag != b"\0":
                raise BrokenLayer("a file's name ends with a slash")
            kind = Kind.DIRECTORY  # how the oldest archives mark one
        is_link = kind in (Kind.HARD_LINK, Kind.SYMLINK)
        link = (_agreed(pax.get(b"linkpath"), pending.link) or _text(block[157:257])) if is_link else b""
        self._check_names(name, link, is_link=is_link)
        return Entry(
            name,
            kind,
            _number(block[100:108]) & 0o7777,
            _owner(pax.get(b"uid"), block[108:116]),
            _owner(pax.get(b"gid"), block[116:124]),
            _parse_time(pax[b"mtime"]) if pax.get(b"mtime") else _number(block[136:148], signed=True) * _NANO,
            self._size(kind, pax.get(b"size"), block),
            link,
            _device(kind, block),
            {key[len(_XATTR) :]: value for key, value in pax.items() if key.startswith(_XATTR)},
        )

    def _check_names(self, name: bytes, link: bytes, *, is_link: bool) -> None:
        if not name or b"\0" in name or b"\0" in link or (is_link and not link):
            raise BrokenLayer("an entry without a usable name")
        if len(name) > self._limits.path or len(link) > self._limits.link:
            raise UnsafeLayer("a name or link target is too long")

    def _size(self, kind: Kind, given: bytes | None, block: bytes) -> int:
        size = _decimal(given) if given else _number(block[124:136])
        if kind is not Kind.FILE and size:
            raise BrokenLayer("content after an entry that has none")
        if size > self._limits.file:
            raise UnsafeLayer(f"a file of {size} bytes")
        return size


def _check_sum(block: bytes) -> None:
    if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 0x20:
        raise BrokenLayer("an archive header with a wrong checksum")


def _number(raw: bytes, *, signed: bool = False) -> int:
    """A numeric field: octal text, or binary where its first bit is set."""
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


def _decimal(raw: bytes) -> int:
    if _NUMBER.fullmatch(raw) is None or int(raw) >= 2**63:
        raise BrokenLayer("an extended header with a number that is none")
    return int(raw)


def _owner(given: bytes | None, raw: bytes) -> int:
    value = _decimal(given) if given else _number(raw)
    if value > _MAX_ID:
        raise UnsafeLayer(f"an owner out of range: {value}")
    return value


def _parse_time(raw: bytes) -> int:
    match = _TIME.fullmatch(raw)
    if match is None:
        raise BrokenLayer("an extended header with a time that is none")
    nanoseconds = int(match[2]) * _NANO + int((match[3] or b"").ljust(9, b"0")[:9])
    return -nanoseconds if match[1] else nanoseconds


def _parse_pax(body: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    while body:
        match = _RECORD_LENGTH.match(body)
        length = int(match[1]) if match else 0
        record, body = body[:length], body[length:]
        key, equals, value = record[match.end() if match else 0 :].partition(b"=")
        if len(record) != length or not record.endswith(b"\n") or not key or not equals:
            raise BrokenLayer("a damaged extended header")
        if key.startswith(b"GNU.sparse."):
            raise BrokenLayer("sparse files are not supported")
        records[key] = value[:-1]
    return records


def _agreed(pax: bytes | None, gnu: bytes | None) -> bytes:
    """The long name; two extensions may not give two."""
    if pax and gnu and pax != gnu:
        raise BrokenLayer("an entry with two different names")
    return pax or gnu or b""


def _short_name(block: bytes) -> bytes:
    name, prefix = _text(block[:100]), _text(block[345:500])
    # GNU's own format keeps other things where POSIX has the prefix.
    return prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _device(kind: Kind, block: bytes) -> tuple[int, int]:
    if kind not in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE):
        return 0, 0
    return _number(block[329:337]), _number(block[337:345])
