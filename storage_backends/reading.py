"""Reading files without waiting where nothing has to be waited for.

Law: bytes that the page cache holds are read on the event loop (1 KiB: 1 µs; a thread costs 150), all others in a
thread. A small object is read whole before it is handed out; only a big one keeps a descriptor, until its block ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final

from moorage.storage_backends.base import FileSpan, ObjectInfo, Reading
from moorage.storage_backends.durability import uninterrupted
from moorage.storage_backends.errors import KeyNotFound, StorageUnavailable
from moorage.storage_backends.facts import facts
from moorage.storage_backends.os_errors import storage_errors
from moorage.storage_backends.walk import Run

__all__ = ["Opening", "Reader"]

_SMALL: Final = 64 << 10
_CHUNK: Final = 1 << 20
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)
_WOULD_WAIT: Final = frozenset({errno.EAGAIN, errno.EOPNOTSUPP})


class Reader:
    """Reads ranges of open files for one store, on one event loop."""

    __slots__ = ("_buffer", "_run")

    def __init__(self, run: Run) -> None:
        self._run = run
        # Shared, for a read of the page cache does not suspend: a warm buffer and one copy of what was read cost
        # 154 µs per MiB, a new buffer and a copy 452, a thread 236.
        self._buffer = memoryview(bytearray(_CHUNK))

    def cached(self, fd: int, start: int, stop: int) -> bytes | None:
        """The bytes from ``start`` to ``stop``, at most 1 MiB, if the page cache has them all."""
        buffer = self._buffer[: stop - start]
        try:
            count = os.preadv(fd, [buffer], start, _NOWAIT)
        except OSError as error:
            if error.errno in _WOULD_WAIT:
                return None
            raise
        return bytes(buffer) if count == len(buffer) else None

    def waiting(self, fd: int, start: int, stop: int) -> asyncio.Future[bytes]:
        """The same bytes, read by a thread."""
        return self._run(_read_waiting, fd, start, stop)


class Opening:
    """An object about to be read: the context manager that ``ObjectStore.read`` returns."""

    __slots__ = ("_key", "_path", "_reader", "_reading", "_start", "_stop")

    def __init__(self, key: str, path: str, start: int, stop: int | None, reader: Reader) -> None:
        self._key, self._path, self._start, self._stop, self._reader = key, path, start, stop, reader
        self._reading: _FileReading | None = None

    async def __aenter__(self) -> Reading:
        with storage_errors:
            fd = _open(self._key, self._path)
            try:
                info = facts(self._key, _file_status(self._key, fd))
                stop = info.size if self._stop is None else min(self._stop, info.size)
                if stop - self._start > _SMALL:
                    self._reading, fd = _FileReading(info, fd, self._start, stop, self._reader), -1
                    return self._reading
                return _HeldReading(info, await self._read_small(fd, stop))
            finally:
                if fd >= 0:
                    os.close(fd)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reading is not None:
            await self._reading.close()

    async def _read_small(self, fd: int, stop: int) -> bytes:
        if stop <= self._start:
            return b""
        data = self._reader.cached(fd, self._start, stop)
        return data if data is not None else await uninterrupted(self._reader.waiting(fd, self._start, stop))


class _HeldReading:
    """The bytes of a small range, all here."""

    __slots__ = ("_data", "info")

    def __init__(self, info: ObjectInfo, data: bytes) -> None:
        self.info, self._data = info, data

    def file(self) -> None:
        """See ``Reading.file``: the bytes are here, which is better."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._data:
            raise StopAsyncIteration
        data, self._data = self._data, b""
        return data


class _FileReading:
    """The bytes of a big range; once a thread had to fetch some, it fetches the next chunk ahead of the reader."""

    __slots__ = ("_ahead", "_fd", "_offset", "_reader", "_stop", "info")

    def __init__(self, info: ObjectInfo, fd: int, offset: int, stop: int, reader: Reader) -> None:
        self.info, self._fd, self._offset, self._stop, self._reader = info, fd, offset, stop, reader
        self._ahead: asyncio.Future[bytes] | None = None

    def file(self) -> FileSpan:
        """See ``Reading.file``."""
        return FileSpan(self._fd, self._offset, self._stop)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._offset >= self._stop:
            raise StopAsyncIteration
        with storage_errors:
            end = min(self._offset + _CHUNK, self._stop)
            data = self._reader.cached(self._fd, self._offset, end) if self._ahead is None else None
            if data is None:
                data = await self._fetch(end)
            self._offset = end
            return data

    async def close(self) -> None:
        """Gives the descriptor back, when no thread reads from it any more."""
        try:
            if self._ahead is not None:
                with contextlib.suppress(OSError, StorageUnavailable):  # nobody waits for these bytes any more
                    await uninterrupted(self._ahead)
        finally:
            os.close(self._fd)

    async def _fetch(self, end: int) -> bytes:
        data = await uninterrupted(self._ahead or self._fetch_ahead(self._offset, end))
        self._ahead = None
        if end < self._stop:
            self._fetch_ahead(end, min(end + _CHUNK, self._stop))
        return data

    def _fetch_ahead(self, start: int, end: int) -> asyncio.Future[bytes]:
        self._ahead = self._reader.waiting(self._fd, start, end)
        return self._ahead


def _file_status(key: str, fd: int) -> os.stat_result:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise KeyNotFound(key)
    return status


def _open(key: str, path: str) -> int:
    try:
        return os.open(path, _OPEN)
    except (FileNotFoundError, NotADirectoryError):
        raise KeyNotFound(key) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link or a socket, which we never made
            raise KeyNotFound(key) from None
        raise


def _read_waiting(fd: int, start: int, stop: int) -> bytes:
    parts = []
    while start < stop:
        data = os.pread(fd, stop - start, start)
        if not data:
            raise StorageUnavailable("a stored file is shorter than it was")
        parts.append(data)
        start += len(data)
    return b"".join(parts) if len(parts) != 1 else parts[0]
