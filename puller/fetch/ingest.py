"""One blob on its way into a layout: a part file, the map of what has arrived, and a lock that processes share.

    ingests/<alg>-<hex>.part     the bytes, each at its final position
    ingests/<alg>-<hex>.map      a line ``start stop`` for each range that was written, so a killed fetch resumes
    ingests/<alg>-<hex>.lock     flock: at most one process fetches this blob

Law: a range enters the map after its bytes are in the file, so ``kill -9`` loses no byte that the map names. A power
cut may: nothing is believed before the whole file has the digest. Readers follow the file, so the page cache is the
buffer and memory stays bounded. Writing and reading may happen in several threads at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import threading
from typing import BinaryIO, cast

from moorage.puller.errors import Restarted
from moorage.puller.fetch.extents import Extents
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.pieces import PIECE
from moorage.registry.oci import Descriptor

__all__ = ["Ingest", "held_bytes", "missing_bytes", "sweep_ingests"]

_BLOCK = 512  # what st_blocks counts, whatever the file system's own block is
_LINE = re.compile(rb"(\d{1,19}) (\d{1,19})\n")


class Ingest:
    """One blob on its way in. Made by ``claim``; ``close`` lets go of it and keeps what has arrived.

    ``readers``: how many have begun to read it meanwhile.
    """

    def __init__(self, files: LayoutFiles, descriptor: Descriptor, path: str, lock: int) -> None:
        self.descriptor = descriptor
        self._files = files
        self._part, self._map = f"{path}.part", f"{path}.map"
        self._lock_path, self._lock = f"{path}.lock", lock
        self._file = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._log: int | None = None
        self._extents = _read_map(self._map, min(os.fstat(self._file).st_size, descriptor.size))
        self._changed = threading.Condition()
        self._generation = self.readers = 0
        self._failure: BaseException | None = None
        self.resumed = self._extents.size

    def __repr__(self) -> str:
        return f"<Ingest {self.descriptor.digest} {self._extents.size} of {self.descriptor.size}>"

    @classmethod
    def claim(cls, files: LayoutFiles, descriptor: Descriptor) -> Ingest | None:
        """The ingest of a blob, with what earlier fetches left of it; None while another process holds it."""
        path = files.ingest_path(f"{descriptor.digest.algorithm}-{descriptor.digest.hex}")
        lock = _take_lock(f"{path}.lock")
        if lock is None:
            return None
        try:
            return cls(files, descriptor, path, lock)
        except BaseException:
            os.close(lock)
            raise

    @property
    def arrived(self) -> int:
        """Bytes that are there from the beginning on without a gap."""
        return self._extents.prefix

    def gaps(self, start: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
        """The ranges that have not arrived, in order."""
        with self._changed:
            return list(self._extents.gaps(start, self.descriptor.size if stop is None else stop))

    def write(self, offset: int, data: memoryview) -> None:
        """Puts bytes where they belong, then into the map."""
        start = offset
        try:
            while data:
                written = os.pwrite(self._file, data[:PIECE], offset)
                offset, data = offset + written, data[written:]
        except OSError as exc:
            exc.filename = self._part  # a full disk should be named
            raise
        with self._changed:
            before = self._extents.prefix
            self._extents.add(start, offset)
            if self._extents.prefix < self.descriptor.size:
                self._note(start, offset)
            if self._extents.prefix != before:
                self._changed.notify_all()

    def open(self) -> BinaryIO:
        """A reader that follows: ``read`` and ``readinto`` wait until the bytes at its position have arrived.

        Its reads raise what the fetch failed with, or ``Restarted`` when the bytes read so far were found wrong.
        """
        self.readers += 1
        return cast("BinaryIO", self.follow())  # a raw file has all that a BinaryIO has, but for typeshed

    def follow(self, position: int = 0) -> FollowingReader:
        """The same as ``open``, from a position on."""
        return FollowingReader(self, os.dup(self._file), position)

    def wait(self, position: int, generation: int) -> int:
        """Waits until the byte at ``position`` has arrived; returns how many bytes are there from it on, 0 at the end.

        Raises:
            Restarted: the part was dropped since ``generation``.
            BaseException: what the fetch failed with.
        """
        with self._changed:
            while True:
                if generation != self._generation:
                    raise Restarted(f"{self.descriptor.digest}: what an earlier run had left was damaged")
                if self._extents.prefix > position or position >= self.descriptor.size:
                    return max(0, self._extents.prefix - position)
                if self._failure is not None:
                    raise self._failure
                self._changed.wait()

    @property
    def generation(self) -> int:
        """How often it was restarted."""
        return self._generation

    def fail(self, failure: BaseException) -> None:
        """Tells those who wait for bytes that none will come."""
        with self._changed:
            self._failure = failure
            self._changed.notify_all()

    def restart(self) -> None:
        """Drops what has arrived."""
        with self._changed:
            self._generation += 1
            self._extents, self.resumed = Extents(), 0
            self._close_log()
            _remove(self._map)
            os.ftruncate(self._file, 0)
            self._changed.notify_all()

    def publish(self) -> None:
        """Makes it a blob of the layout. The caller has verified size and digest.

        Not synced: ``puller.unsynced`` says what that means.
        """
        os.ftruncate(self._file, self.descriptor.size)  # an earlier fetch may have been promised more
        self._files.unsynced.note(blobs=[self.descriptor.digest])
        self._files.publish(self._part, self.descriptor.digest, synced=False)
        _remove(self._map)

    def drop(self) -> None:
        """Removes what has arrived from the disk."""
        _remove(self._part)
        _remove(self._map)

    def close(self) -> None:
        """Lets go of the blob; whoever waits for the lock goes on."""
        with self._changed:
            self._close_log()
        os.close(self._file)
        if not os.path.exists(self._part):
            _remove(self._lock_path)  # while we hold it: whoever waits looks again whether the path is still his file
        os.close(self._lock)

    def _note(self, start: int, stop: int) -> None:
        if self._log is None:
            self._log = os.open(self._map, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        os.write(self._log, b"%d %d\n" % (start, stop))

    def _close_log(self) -> None:
        if self._log is not None:
            os.close(self._log)
            self._log = None


class FollowingReader(io.RawIOBase):
    """Reads a part file no faster than it grows."""

    def __init__(self, ingest: Ingest, file: int, position: int) -> None:
        super().__init__()
        self._ingest, self._file = ingest, file
        self._generation, self._position = ingest.generation, position

    def readable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position in the blob."""
        return self._position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # typeshed names a wider buffer
        """Fills the buffer as far as bytes have arrived, at least one; 0 at the end."""
        view, size = memoryview(buffer).cast("B"), 0
        # Nothing where something was: the part has just been dropped, and the next wait says so.
        while not size and (there := self._ingest.wait(self._position, self._generation)):
            size = os.preadv(self._file, [view[:there]], self._position)
        self._position += size
        return size

    def close(self) -> None:
        """Closes the file."""
        if not self.closed:
            os.close(self._file)
        super().close()


def held_bytes(files: LayoutFiles, descriptor: Descriptor) -> int:
    """How many bytes of a blob earlier fetches left; nothing is claimed."""
    path = _path_without_suffix(files, descriptor)
    try:
        size = os.stat(f"{path}.part").st_size
    except FileNotFoundError:
        return 0
    return _read_map(f"{path}.map", min(size, descriptor.size)).size


def missing_bytes(files: LayoutFiles, descriptor: Descriptor) -> int:
    """How many bytes of disk the blob still needs: none once it is there, less than its size while it is fetched."""
    try:
        allocated = os.stat(f"{_path_without_suffix(files, descriptor)}.part").st_blocks * _BLOCK
    except FileNotFoundError:
        allocated = descriptor.size if os.path.exists(files.blob_path(descriptor.digest)) else 0
    return max(descriptor.size - allocated, 0)


def _path_without_suffix(files: LayoutFiles, descriptor: Descriptor) -> str:
    return os.path.join(files.root, "ingests", f"{descriptor.digest.algorithm}-{descriptor.digest.hex}")


def sweep_ingests(files: LayoutFiles) -> None:
    """Removes what a kill left of fetches that were all but done: maps and locks without a part."""
    folder = os.path.dirname(files.ingest_path(""))
    for name in os.listdir(folder):
        path = os.path.join(folder, name.rpartition(".")[0])
        if name.endswith((".map", ".lock")) and not os.path.exists(f"{path}.part"):
            lock = _take_lock(f"{path}.lock")
            if lock is not None:
                if not os.path.exists(f"{path}.part"):
                    _remove(f"{path}.map")
                    _remove(f"{path}.lock")
                os.close(lock)


def _take_lock(path: str) -> int | None:
    """A descriptor that holds the lock, or None if another process does."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(path), os.fstat(lock)):
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except FileNotFoundError:
            pass  # its holder was done and removed it
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _read_map(path: str, size: int) -> Extents:
    """The ranges that the map names, as far as the file is long; a line that was cut off counts for nothing."""
    extents = Extents()
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        for line in file:
            match = _LINE.fullmatch(line)
            if match and int(match[2]) <= size:
                extents.add(int(match[1]), int(match[2]))
    return extents


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
