"""Uploads to a directory: bytes gather in ``.moorage/staging/<id>``, the truth about them is ``uploads/<id>``.

Law: a record never says more than is safe on the disk; what the file holds beyond its record is not there, and the next
append cuts it off. Whoever changes the file holds its lock, and asks after it got the lock whether it is still the file
of that name: so bytes that were committed are out of reach of everybody who came late.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from moorage.storage_backends.base import UPLOADS, ObjectInfo, UploadInfo
from moorage.storage_backends.durability import Disk, uninterrupted
from moorage.storage_backends.errors import OffsetMismatch, StorageError, UploadNotFound
from moorage.storage_backends.facts import facts
from moorage.storage_backends.locks import Stripes, briefly
from moorage.storage_backends.os_errors import storage_errors
from moorage.storage_backends.pieces import Pieces
from moorage.storage_backends.tree import Tree, stamp
from moorage.storage_backends.upload_record import UploadRecord, record_key
from moorage.storage_backends.walk import Run

__all__ = ["Staging"]

_WRITE_BEHIND: Final = 8 << 20
_STROKE: Final = 64 << 10
"""Bytes of one write. For more the kernel takes large folios, of memory that nobody has touched for long: measured in a
virtual machine, Linux 6.18, 64 MiB cost 17 ms of processor time in strokes of 64 KiB and 145 in strokes of 1 MiB."""

_PATIENCE: Final = 5.0
"""Seconds to wait for another writer of the same upload."""

_PAUSE: Final = 0.01

_READS: Final = 10
"""How often a record is read before it is taken for torn."""

_READ_WRITE: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


class Staging:
    """The open uploads of one store."""

    def __init__(self, tree: Tree, stripes: Stripes, disk: Disk, run: Run) -> None:
        self._tree, self._stripes, self._disk, self._run = tree, stripes, disk, run
        self._folder = f"{tree.private}staging/"
        self._blocks = Pieces()

    def create(self, upload: str, record: UploadRecord) -> None:
        """Opens an upload. Not durable; its file is made with its first byte."""
        self._tree.create(record_key(upload), record.encode(), set())

    def stat(self, upload: str) -> UploadInfo:
        """See ``ObjectStore.stat_upload``. Bytes of an append that is still under way are progress, too."""
        record, status = self._read(upload)
        size, written = _size_and_time(self._path(upload))
        if size < record.offset:
            raise UploadNotFound(f"the bytes of upload {upload} are lost")
        return _info(record, max(status.st_mtime, written))

    async def append(
        self, upload: str, offset: int, data: AsyncIterable[bytes], note: Callable[[int], bytes]
    ) -> UploadInfo:
        """See ``ObjectStore.append_upload``."""
        async with self._claimed(upload, offset) as claim:
            writer = _Writer(claim.fd, offset, self._disk, self._run)
            try:
                with self._blocks.transfer():
                    async for chunk in data:
                        await writer.write(chunk, block=self._blocks.size)
            except BaseException as error:
                if not writer.failed:
                    await self._keep_after(error, claim, writer, note)
                raise
            return await self._keep(claim, writer, note)

    async def commit(self, upload: str, offset: int, touched: set[str]) -> ObjectInfo:
        """See ``ObjectStore.commit_upload``; the directories in ``touched`` remain to be made durable."""
        async with self._claimed(upload, offset) as claim:
            with storage_errors:
                return await briefly(self._run, lambda wait: self._publish(claim, touched, wait=wait))

    def abort(self, upload: str) -> None:
        """See ``ObjectStore.abort_upload``. May block."""
        with self._stripes.hold(record_key(upload), wait=True):
            _unlink(self._tree.base + UPLOADS + upload)
            _unlink(self._path(upload))

    def sweep(self, older_than: float) -> None:
        """Removes bytes that no record speaks of and that nobody has touched since ``older_than`` (Unix time)."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # another process commits it
                    stale = entry.stat(follow_symlinks=False).st_mtime < older_than
                    if stale and _is_gone(self._tree.base + UPLOADS + entry.name):
                        os.unlink(entry.path)

    def _read(self, upload: str) -> tuple[UploadRecord, os.stat_result]:
        try:
            fd = os.open(self._tree.base + record_key(upload), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise UploadNotFound(upload) from None
        try:
            return _read_whole(upload, fd)
        finally:
            os.close(fd)

    @contextlib.asynccontextmanager
    async def _claimed(self, upload: str, offset: int) -> AsyncIterator[_Claim]:
        """Locks the bytes of an upload that stands at ``offset``, and cuts off what its record does not know."""
        with storage_errors:
            fd = await self._lock(upload, offset)
        try:
            with storage_errors:
                claim = _Claim(upload, fd, self._read_claimed(upload))
                _require(claim.record, offset)
                size = os.fstat(fd).st_size
                if size < offset:
                    raise UploadNotFound(f"the bytes of upload {upload} are lost")
                if size > offset:
                    await uninterrupted(self._run(self._cut, fd, offset))
            yield claim
        finally:
            os.close(fd)  # which unlocks; every thread that used it has ended

    async def _lock(self, upload: str, offset: int) -> int:
        """The bytes of an upload that stands at ``offset``, open, and nobody else's while they are."""
        path = self._path(upload)
        for _ in range(round(_PATIENCE / _PAUSE)):
            try:
                fd = os.open(path, _READ_WRITE)
            except FileNotFoundError:
                fd = self._create_bytes(upload, offset)
            if _locked(fd) and _is_at(fd, path):
                return fd
            os.close(fd)
            _require(self._read(upload)[0], offset)
            await asyncio.sleep(_PAUSE)
        raise OffsetMismatch(self._read(upload)[0].offset)

    def _create_bytes(self, upload: str, offset: int) -> int:
        record, _ = self._read(upload)
        _require(record, offset)
        if record.offset:
            raise UploadNotFound(f"the bytes of upload {upload} are lost")
        return os.open(self._path(upload), _READ_WRITE | os.O_CREAT, 0o600)

    def _read_claimed(self, upload: str) -> UploadRecord:
        try:
            return self._read(upload)[0]
        except UploadNotFound:
            _unlink(self._path(upload))  # it ended while we waited, and we may have made its file anew
            raise

    def _path(self, upload: str) -> str:
        record_key(upload)  # refuses what is no id, before it is part of a path
        return self._folder + upload

    def _cut(self, fd: int, offset: int) -> None:
        os.ftruncate(fd, offset)
        self._disk.sync_data(fd)

    async def _keep(self, claim: _Claim, writer: _Writer, note: Callable[[int], bytes]) -> UploadInfo:
        """Makes what arrived durable, then says so in the record."""
        offset = claim.record.offset + writer.taken
        record = UploadRecord(key=claim.record.key, offset=offset, note=note(offset))
        with storage_errors:
            return await uninterrupted(self._run(self._seal, claim, writer, await writer.last(), record))

    async def _keep_after(
        self, error: BaseException, claim: _Claim, writer: _Writer, note: Callable[[int], bytes]
    ) -> None:
        try:
            await self._keep(claim, writer, note)
        except StorageError as failure:
            error.add_note(f"what had arrived could not be kept: {failure}")

    def _seal(self, claim: _Claim, writer: _Writer, last: _Block, record: UploadRecord) -> UploadInfo:
        writer.write_block(last)
        try:
            self._disk.sync_data(claim.fd)
        except OSError:
            self.abort(claim.upload)  # nobody can say what is on the disk: these bytes must never be synced again
            raise
        try:
            return self._rewrite(claim, record)
        except OSError:
            os.ftruncate(claim.fd, claim.record.offset)  # gives the room back; the record never spoke of it
            raise

    def _rewrite(self, claim: _Claim, record: UploadRecord) -> UploadInfo:
        """Writes the record over the old one, in its place.

        A rename over the old file would make ext4 write it out at once, and its removal, at the commit, wait for that:
        1.7 ms measured. Nobody is killed in the middle of one page; a reader who catches us there reads again; what a
        power cut tears is no record.
        """
        raw = record.encode()
        with self._stripes.hold(record_key(claim.upload), wait=True):
            try:
                fd = os.open(self._tree.base + record_key(claim.upload), os.O_WRONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise UploadNotFound(f"upload {claim.upload} was aborted") from None
            try:
                os.pwrite(fd, raw.ljust(os.fstat(fd).st_size), 0)
                stamp(fd)
                return _info(record, os.fstat(fd).st_mtime)
            finally:
                os.close(fd)

    def _publish(self, claim: _Claim, touched: set[str], *, wait: bool) -> ObjectInfo:
        key = claim.record.key
        with self._stripes.hold(key, wait=wait):
            stamp(claim.fd)
            try:
                self._tree.move(self._path(claim.upload), key, touched)
            except FileNotFoundError:
                raise UploadNotFound(f"upload {claim.upload} was aborted") from None
            info = facts(key, os.fstat(claim.fd))
        _unlink(self._tree.base + UPLOADS + claim.upload)
        return info


@dataclass(frozen=True, slots=True)
class _Claim:
    """The lock on an upload's bytes, and what its record said under the lock."""

    upload: str
    fd: int
    record: UploadRecord


@dataclass(frozen=True, slots=True)
class _Block:
    """Bytes on their way to the file, and where they belong."""

    parts: list[bytes]
    offset: int


class _Writer:
    """Takes bytes and writes them in a thread, a block at a time, while the next block is gathered.

    ``taken``: bytes so far. ``failed``: some could not be written; the file was cut back to where it began.
    """

    def __init__(self, fd: int, start: int, disk: Disk, run: Run) -> None:
        self._fd, self._start, self._disk, self._run = fd, start, disk, run
        self._parts: list[bytes] = []
        self._gathered = 0
        self._hinted = start
        self._writing: asyncio.Future[None] | None = None
        self.taken = 0
        self.failed = False

    async def write(self, chunk: bytes, *, block: int) -> None:
        """Takes a chunk; waits only when two blocks, of that many bytes, are under way."""
        self._parts.append(chunk)
        self._gathered += len(chunk)
        self.taken += len(chunk)
        if self._gathered >= block:
            with storage_errors:
                self._writing = self._run(self.write_block, await self.last())

    async def last(self) -> _Block:
        """What is gathered, for the caller to write, once the block before it has been written."""
        if self._writing is not None:
            await uninterrupted(self._writing)
            self._writing = None
        block = _Block(self._parts, self._start + self.taken - self._gathered)
        self._parts, self._gathered = [], 0
        return block

    def write_block(self, block: _Block) -> None:
        """Writes a block. Blocks."""
        try:
            end = _write_at(self._fd, block)
        except OSError:
            self.failed = True
            os.ftruncate(self._fd, self._start)
            raise
        if end - self._hinted >= _WRITE_BEHIND:
            self._disk.start_writing(self._fd, self._hinted, end - self._hinted)
            self._hinted = end


def _write_at(fd: int, block: _Block) -> int:
    """Writes all of the block; returns where it ends."""
    end = block.offset
    for part in block.parts:
        rest = memoryview(part)
        while rest:
            done = os.pwrite(fd, rest[:_STROKE], end)
            end, rest = end + done, rest[done:]
    return end


def _read_whole(upload: str, fd: int) -> tuple[UploadRecord, os.stat_result]:
    """The record in an open file; read again where its writer may be just in the middle."""
    for _ in range(_READS):
        with contextlib.suppress(UploadNotFound):
            return _read_once(upload, fd)
    return _read_once(upload, fd)


def _read_once(upload: str, fd: int) -> tuple[UploadRecord, os.stat_result]:
    status = os.fstat(fd)
    return UploadRecord.decode(upload, os.pread(fd, status.st_size, 0)), status


def _require(record: UploadRecord, offset: int) -> None:
    if record.offset != offset:
        raise OffsetMismatch(record.offset)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: str) -> bool:
    """Whether the open file is still the one at ``path``: it may have been committed while we waited for its lock."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _size_and_time(path: str) -> tuple[int, float]:
    """Of the bytes of an upload; 0 where there is no file, which is made with its first byte."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return 0, 0.0
    return status.st_size, status.st_mtime


def _is_gone(path: str) -> bool:
    """Not merely hidden by a disk that fails, which ``os.path.lexists`` would take for the same."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    return False


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _info(record: UploadRecord, modified: float) -> UploadInfo:
    return UploadInfo(record.key, record.offset, record.note, modified)
