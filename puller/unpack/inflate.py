"""The uncompressed bytes of a layer: gzip, zstd or plain, told by its first bytes, because media types are often wrong.

Members and frames are read to the last; the work is linear in the compressed bytes, and no chunk is larger than asked.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import zstandard
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

_CHUNK = 1024 * 1024
_GZIP_BITS = 31
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = tuple(bytes((0x50 + number, 0x2A, 0x4D, 0x18)) for number in range(16))
_ZSTD_WINDOW = 128 * 1024 * 1024


def inflate(file: BinaryIO) -> Iterator[bytes]:
    """Chunks of at most 1 MiB.

    Raises:
        BrokenLayer: the compression is damaged, cut short, or followed by something else.
    """
    head = file.read(_CHUNK)
    if head.startswith(_GZIP_MAGIC):
        yield from _inflate_gzip(head, file)
    elif head.startswith((_ZSTD_MAGIC, *_ZSTD_SKIPPABLE)):
        yield from _inflate_zstd(head, file)
    else:
        while head:
            yield head
            head = file.read(_CHUNK)


def _inflate_gzip(data: bytes, file: BinaryIO) -> Iterator[bytes]:
    while data:
        if not _GZIP_MAGIC.startswith(data[:2]):
            raise BrokenLayer("gzip: something else follows the last member")
        inflater = _new_inflater(wbits=_GZIP_BITS)
        while not inflater.eof:
            try:
                output = inflater.decompress(data, _CHUNK)
            except _INFLATE_ERRORS as exc:
                raise BrokenLayer(f"gzip: {exc}") from exc
            if output:
                yield output
            data = inflater.unconsumed_tail
            if not inflater.eof and not data:
                data = file.read(_CHUNK)
                if not data and not output:
                    raise BrokenLayer("gzip: cut short")
        data = inflater.unused_data or file.read(_CHUNK)


def _inflate_zstd(head: bytes, file: BinaryIO) -> Iterator[bytes]:
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
