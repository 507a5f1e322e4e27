"""The files inside an archive, and where their bytes lie; nothing is unpacked.

Law: an archive is a stranger's. It is read by the reader that reads layers, so there is one reading or none; a link
leads to another member or nowhere; a name that is there twice is nobody's; a compressed archive is inflated into a
file without a name, up to a limit.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from moorage.puller.entries import Kind, padding
from moorage.puller.errors import BrokenLayer, ImageError, UnsafeLayer
from moorage.puller.file_body import FileSpan
from moorage.puller.staging import write_all
from moorage.puller.unpack.inflate import inflate
from moorage.puller.unpack.limits import Limits
from moorage.puller.unpack.source import TarReader

__all__ = ["Members"]

_LIMITS = Limits(entries=100_000)
_MAX_LINKS = 16
_BLOCK = 512
_ZEROS = bytes(1024 * 1024)
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")


class Members:
    """The members of the archive at ``path``. Close it: a compressed archive lies inflated beside it until then.

    Raises:
        ImageError: it is no archive, damaged, or beyond a limit.
        OSError: it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: BinaryIO = open(path, "rb", buffering=0)  # noqa: SIM115 (close does)
        try:
            self._file = self._plain(self._file)
            self._spans: dict[str, tuple[int, int]] = {}
            self._links: dict[str, str] = {}
            self._doubtful: set[str] = set()
            self._read()
        except (BrokenLayer, UnsafeLayer) as exc:
            self.close()
            raise ImageError(f"{path}: {exc}") from exc
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Members {self.path!r}>"

    def close(self) -> None:
        """Closes the archive."""
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._spans or name in self._links

    def span(self, name: str) -> FileSpan:
        """Where the member's bytes lie, links followed.

        Raises:
            ImageError: there is no such member, it is no file, or there are several of the name.
        """
        wanted = name
        for _ in range(_MAX_LINKS):
            if name in self._doubtful:
                raise ImageError(f"{self.path}: holds {name} more than once")
            if name in self._spans:
                start, stop = self._spans[name]
                return FileSpan(f"/dev/fd/{self._file.fileno()}", start, stop)
            if name not in self._links:
                break
            name = self._links[name]
        raise ImageError(f"{self.path}: holds no file {wanted}")

    def read(self, name: str, *, limit: int) -> bytes:
        """The member's bytes.

        Raises:
            ImageError: see ``span``, or they are more than ``limit``.
        """
        span = self.span(name)
        if span.stop - span.start > limit:
            raise ImageError(f"{self.path}: {name} is longer than {limit} bytes")
        return os.pread(self._file.fileno(), span.stop - span.start, span.start)

    def _plain(self, file: BinaryIO) -> BinaryIO:
        """The archive itself, uncompressed."""
        head = os.pread(file.fileno(), 8, 0)
        if not head.startswith(_COMPRESSED):
            return file
        limit, size = _LIMITS.of_archive(os.fstat(file.fileno()).st_size), 0
        spool = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (close does)
        try:
            with file:
                for chunk in inflate(file):
                    size += len(chunk)
                    _check_size(size, limit)
                    write_all(spool, chunk)
        except BaseException:
            spool.close()
            raise
        return spool

    def _read(self) -> None:
        headers = _Headers(self._file)
        size = os.fstat(self._file.fileno()).st_size
        for entry in TarReader(iter(headers), _LIMITS):
            name = _normal(entry.name)
            if entry.kind is Kind.FILE:
                if headers.position + entry.size > size:
                    raise BrokenLayer("the archive is cut short")
                if entry.extents is not None:
                    raise BrokenLayer(f"{name} is a sparse file")
                self._note(name)
                self._spans[name] = (headers.position, headers.position + entry.size)
                headers.skip(entry.size + padding(entry.size))
            elif entry.kind in (Kind.SYMLINK, Kind.HARD_LINK):
                base = posixpath.dirname(name) if entry.kind is Kind.SYMLINK else ""
                self._note(name)
                self._links[name] = posixpath.normpath(posixpath.join(base, _text(entry.link)))

    def _note(self, name: str) -> None:
        if name in self:
            self._doubtful.add(name)


class _Headers:
    """The blocks of an archive as far as its reader looks at them: content is stepped over, as if it were zeros."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._skip = 0
        self.position = 0

    def skip(self, size: int) -> None:
        """The next ``size`` bytes are content."""
        self._skip = size

    def __iter__(self) -> Iterator[bytes]:
        while True:
            if self._skip:
                chunk = _ZEROS[: self._skip]
                self._skip -= len(chunk)
            else:
                chunk = os.pread(self._file.fileno(), _BLOCK, self.position)
            if not chunk:
                return
            self.position += len(chunk)
            yield chunk


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise UnsafeLayer(f"more than {limit} bytes, uncompressed")


def _normal(raw: bytes) -> str:
    return posixpath.normpath(_text(raw).lstrip("/"))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
