"""Reads the archive of a layer as a stream of entries.

Law: one reading or none. Where tar programs could understand a header differently (sizes, names given twice, sparse
maps, types of one vendor) the layer is refused, so what a scanner saw is what is unpacked (rules U8, 16). A PAX size
belongs to the next real entry, never to a header in between. Nothing is allocated because a header says so. Bytes after
the end of the archive are read, because the diffID counts them, and mean nothing (rule 17).
"""

from __future__ import annotations

from collections.abc import Iterator

from moorage.puller.entries import BLOCK, Entry, Kind, padding
from moorage.puller.errors import BrokenLayer, UnsafeLayer
from moorage.puller.unpack import sparse
from moorage.puller.unpack.header import ZEROS, check_sum, number, short_name, text
from moorage.puller.unpack.limits import Limits
from moorage.puller.unpack.pax import check_global, decimal, parse_records, parse_time, xattrs_of
from moorage.registry.oci.values import dataclass, field

__all__ = ["TarReader"]

_KINDS = {kind.value: kind for kind in Kind} | {b"\0": Kind.FILE, b"7": Kind.FILE, b"S": Kind.FILE}
_NANO = 1_000_000_000
_MAX_ID = 2**32 - 2


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

    def drain(self) -> None:
        """Reads to the end of the stream."""
        self._view = memoryview(b"")
        for _ in self._chunks:
            pass


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
        if self._unread:
            for _ in self.data():
                pass
        if self._padding and len(self._blocks.take(self._padding)) != self._padding:
            raise BrokenLayer("the archive is cut short")
        self._padding = 0
        block = self._blocks.take(BLOCK)
        if block and block != ZEROS:
            check_sum(block)
            return block
        # Writers end with two zero blocks, one, or none; that all is there is what the diffID proves.
        if block and self._blocks.take(BLOCK) not in (b"", ZEROS):
            raise BrokenLayer("a lone zero block in the archive")
        self._blocks.drain()
        return None

    def _next_block(self) -> bytes:
        block = self._blocks.take(BLOCK)
        if not block:
            raise BrokenLayer("the archive is cut short")
        return block

    def _read_extension(self, block: bytes, flag: bytes, pending: _Pending) -> None:
        if flag in pending.seen:
            raise BrokenLayer("two headers of one kind describe one entry")
        size = number(block[124:136])
        if size > self._limits.header:
            raise UnsafeLayer(f"an extended header of {size} bytes")
        body = self._blocks.take(size)
        if len(body) != size or len(self._blocks.take(padding(size))) != padding(size):
            raise BrokenLayer("the archive is cut short")
        if flag == b"g":
            check_global(parse_records(body))
            return
        pending.seen.add(flag)
        if flag == b"x":
            pending.pax = parse_records(body)
        elif flag == b"L":
            pending.name = body.rstrip(b"\0")
        else:
            pending.link = body.rstrip(b"\0")

    def _finish(self, block: bytes, flag: bytes, pending: _Pending) -> Entry:
        kind = _KINDS.get(flag)
        if kind is None:
            raise BrokenLayer(f"an entry of unsupported type {flag!r}")
        pax = pending.pax
        name = _agreed(pax.get(b"path"), pending.name) or short_name(block)
        if kind is Kind.FILE and name.endswith(b"/"):
            if flag != b"\0":
                raise BrokenLayer("a file's name ends with a slash")
            kind = Kind.DIRECTORY  # how the oldest archives mark one
        is_link = kind in (Kind.HARD_LINK, Kind.SYMLINK)
        link = (_agreed(pax.get(b"linkpath"), pending.link) or text(block[157:257])) if is_link else b""
        size, extents = self._measure(kind, pax, block, flag)
        if extents is not None:
            name = _sparse_name(pax, pending) or name
        self._check_names(name, link, is_link=is_link)
        return Entry(
            name,
            kind,
            number(block[100:108]) & 0o7777,
            _owner(pax.get(b"uid"), block[108:116]),
            _owner(pax.get(b"gid"), block[116:124]),
            parse_time(pax[b"mtime"]) if pax.get(b"mtime") else number(block[136:148], signed=True) * _NANO,
            size,
            link,
            _device(kind, block),
            xattrs_of(pax),
            extents,
        )

    def _check_names(self, name: bytes, link: bytes, *, is_link: bool) -> None:
        if not name or b"\0" in name or b"\0" in link or (is_link and not link):
            raise BrokenLayer("an entry without a usable name")
        if len(name) > self._limits.path or len(link) > self._limits.link:
            raise UnsafeLayer("a name or link target is too long")

    def _measure(
        self, kind: Kind, pax: dict[bytes, bytes], block: bytes, flag: bytes
    ) -> tuple[int, sparse.Extents | None]:
        """The file's size, and where the stored bytes lie in it if it is sparse; sets what is to be read."""
        given = pax.get(b"size")
        stored = decimal(given) if given else number(block[124:136])
        if kind is not Kind.FILE and stored:
            raise BrokenLayer("content after an entry that has none")
        size, extents = stored, None
        if flag == b"S" or sparse.is_sparse(pax):
            size, extents, stored = self._read_map(pax, block, flag, stored)
        if size > self._limits.file:
            raise UnsafeLayer(f"a file of {size} bytes")
        self._unread, self._padding = stored, padding(stored)
        return size, extents

    def _read_map(
        self, pax: dict[bytes, bytes], block: bytes, flag: bytes, stored: int
    ) -> tuple[int, sparse.Extents, int]:
        """Size and map of a sparse file, and its stored bytes without the map."""
        is_old = flag == b"S"
        if flag not in (b"0", b"\0", b"S") or (is_old and (sparse.is_sparse(pax) or pax.get(b"size"))):
            raise BrokenLayer("a sparse file of two forms")
        if is_old:
            extents, size = sparse.read_old_map(block, self._next_block, limit=self._limits.header)
        elif sparse.version_of(pax) == (0, 0):
            extents, size = sparse.record_map(pax), decimal(pax[b"GNU.sparse.size"])
        else:
            extents, taken = sparse.read_stored_map(self._next_block, limit=min(stored, self._limits.header))
            size, stored = decimal(pax[b"GNU.sparse.realsize"]), stored - taken
        return size, sparse.checked(extents, size=size, stored=stored), stored


def _owner(given: bytes | None, raw: bytes) -> int:
    value = decimal(given) if given else number(raw)
    if value > _MAX_ID:
        raise UnsafeLayer(f"an owner out of range: {value}")
    return value


def _agreed(pax: bytes | None, gnu: bytes | None) -> bytes:
    """The long name; two extensions may not give two."""
    if pax and gnu and pax != gnu:
        raise BrokenLayer("an entry with two different names")
    return pax or gnu or b""


def _sparse_name(pax: dict[bytes, bytes], pending: _Pending) -> bytes:
    """The name of a sparse file, whose header carries a made-up one for programs that do not know the form."""
    name = pax.get(b"GNU.sparse.name", b"")
    if name and pending.name:
        raise BrokenLayer("an entry with two different names")
    return name


def _device(kind: Kind, block: bytes) -> tuple[int, int]:
    if kind not in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE):
        return 0, 0
    return number(block[329:337]), number(block[337:345])
