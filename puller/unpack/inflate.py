"""The uncompressed bytes of a layer: gzip, zstd or plain, told by its first bytes, because media types are often wrong.

Members and frames are read to the last; the work is linear in the compressed bytes, and no chunk is larger than asked.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from moorage.puller.errors import BrokenLayer

try:
    from isal import isal_zlib
except ImportError:  # no wheel for this machine: the same stream, at half the speed
    _new_inflater: Callable[..., Any] = zlib.decompressobj
    _INFLATE_ERRORS: tuple[type[Exception], ...] = (zlib.error,)
else:
    _new_inflater = isal_zlib.decompressobj
    _INFLATE_ERRORS = (zlib.error, cast("type[Exception]", isal_zlib.error))

__all__ = ["inflate"]

_READ = 256 * 1024
_CHUNK = 512 * 1024
"""These two measured fastest: more is copied more often (what an inflater leaves over) and falls out of the cache."""

_FIRST_FEED = 16 * 1024
_GZIP_BITS = 31
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = tuple(bytes((0x50 + number, 0x2A, 0x4D, 0x18)) for number in range(16))
_ZSTD_WINDOW = 128 * 1024 * 1024


def inflate(file: BinaryIO) -> Iterator[bytes]:
    """Chunks of at most 512 KiB.

    Raises:
        BrokenLayer: the compression is damaged, cut short, or followed by something else.
    """
    head = _read_head(file)
    if head.startswith(_GZIP_MAGIC):
        yield from _inflate_gzip(_Feed(head, file))
    elif head.startswith((_ZSTD_MAGIC, *_ZSTD_SKIPPABLE)):
        yield from _inflate_zstd(head, file)
    else:
        while head:
            yield head
            head = file.read(_READ)


def _read_head(file: BinaryIO) -> bytes:
    """Enough to tell the compression by; a blob that is still arriving may give its first bytes one at a time."""
    head = file.read(_READ)
    while 0 < len(head) < len(_ZSTD_MAGIC) and (more := file.read(_READ)):
        head += more
    return head


class _Feed:
    """Compressed bytes in pieces that grow: an archive may have a member per file, and each leaves over what it was
    given too much."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._view = memoryview(head)
        self._position = 0
        self._file = file
        self._size = _FIRST_FEED

    def begin(self) -> bytes:
        """The first two bytes of the next member; less at the end of the file. They are not taken."""
        self._size = _FIRST_FEED
        self._fill()
        return bytes(self._view[self._position : self._position + 2])

    def take(self) -> memoryview:
        """The next bytes; none at the end of the file."""
        self._fill()
        piece = self._view[self._position : self._position + self._size]
        self._position += len(piece)
        self._size *= 4
        return piece

    def give_back(self, size: int) -> None:
        """The last ``size`` bytes of what was taken last are not the member's."""
        self._position -= size

    def _fill(self) -> None:
        if self._position == len(self._view):
            self._view, self._position = memoryview(self._file.read(_READ)), 0


def _inflate_gzip(feed: _Feed) -> Iterator[bytes]:
    while magic := feed.begin():
        if not _GZIP_MAGIC.startswith(magic):
            raise BrokenLayer("gzip: something else follows the last member")
        inflater, data = _new_inflater(wbits=_GZIP_BITS), feed.take()
        while True:
            try:
                output = inflater.decompress(data, _CHUNK)
            except _INFLATE_ERRORS as exc:
                raise BrokenLayer(f"gzip: {exc}") from exc
            if output:
                yield output
            if inflater.eof:
                break
            if not data and not output:
                raise BrokenLayer("gzip: cut short")
            data = inflater.unconsumed_tail or feed.take()
        feed.give_back(len(inflater.unused_data))


def _inflate_zstd(head: bytes, file: BinaryIO) -> Iterator[bytes]:
    import zstandard  # noqa: PLC0415 (most layers are gzip, and it takes a while to load)

    # The reader's output is bounded, which that of a decompressobj is not. A frame cut short just ends here;
    # the archive in it is then cut short too.
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    reader = decompressor.stream_reader(cast(BinaryIO, _Rejoined(head, file)), read_across_frames=True)
    try:
        while chunk := reader.read(_CHUNK):
            yield chunk
    except zstandard.ZstdError as exc:
        raise BrokenLayer(f"zstd: {exc}") from exc


class _Rejoined:
    """A file, with what was already read of it in front."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head = head
        self._file = file

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, or the head at once."""
        head, self._head = self._head, b""
        return head or self._file.read(size)
