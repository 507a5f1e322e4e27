"""A store in a dictionary: the whole contract, nothing durable. For tests and for trying things out.

Law: between two awaits of the caller's own data nothing else runs, so a test that schedules its tasks one by one
decides every interleaving. Versions and upload ids are counted, times come from the clock given.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from moorage.storage_backends.base import (
    ANY,
    Capabilities,
    CommonPrefix,
    Expect,
    ObjectInfo,
    Reading,
    UploadInfo,
    check_key,
    check_prefix,
)
from moorage.storage_backends.errors import KeyInvalid, KeyNotFound, OffsetMismatch, UploadNotFound
from moorage.storage_backends.expectation import check_writable_key, require
from moorage.storage_backends.upload_record import UploadRecord, record_key

__all__ = ["MemoryStore"]

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    info: ObjectInfo


@dataclass(slots=True)
class _Staged:
    data: bytearray
    busy: bool = False


class _MemoryReading:
    """A reading over bytes that are already here."""

    def __init__(self, info: ObjectInfo, data: bytes) -> None:
        self.info = info
        self._data = data

    def file(self) -> None:
        """See ``Reading.file``: there is no file."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), _CHUNK):
            yield self._data[start : start + _CHUNK]


class MemoryStore:
    """An ``ObjectStore`` in this process's memory.

    Args:
        clock: tells the time that objects are marked with, in seconds (Unix time).
    """

    capabilities = Capabilities(conditional_delete=True)

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._objects: dict[str, _Object] = {}
        self._keys: list[str] = []  # sorted
        self._staged: dict[str, _Staged] = {}
        self._versions = itertools.count(1)
        self._uploads = itertools.count(1)

    def __repr__(self) -> str:
        return f"<MemoryStore objects={len(self._objects)}>"

    async def stat(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.stat``."""
        return self._get(key).info

    @contextlib.asynccontextmanager
    async def read(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[Reading]:
        """See ``ObjectStore.read``."""
        found = self._get(key)
        yield _MemoryReading(found.info, found.data[start:stop])

    async def put(self, key: str, data: bytes, *, expect: Expect = ANY) -> str:
        """See ``ObjectStore.put``."""
        check_writable_key(key)
        require(key, expect, self._version(key))
        return self._set(key, bytes(data)).version

    async def copy(self, src: str, dst: str) -> ObjectInfo:
        """See ``ObjectStore.copy``."""
        check_writable_key(dst)
        return self._set(dst, self._get(src).data)

    async def delete(self, key: str, *, expect: Expect = ANY) -> None:
        """See ``ObjectStore.delete``."""
        check_writable_key(key)
        version = self._version(key)
        if version is not None:
            require(key, expect, version)
            self._remove(key)

    async def list(
        self, prefix: str, *, after: str = "", delimiter: str | None = None
    ) -> AsyncIterator[ObjectInfo | CommonPrefix]:
        """See ``ObjectStore.list``."""
        check_prefix(prefix)
        if delimiter not in (None, "/"):
            raise KeyInvalid("keys are delimited by '/'")
        key = self._first_key(prefix, after)
        while key is not None:
            fold = key.find("/", len(prefix)) + 1 if delimiter else 0
            if not fold:
                yield self._objects[key].info
                key = self._next_key(prefix, key + "\0")
                continue
            folded = key[:fold]
            if folded > after:
                yield CommonPrefix(folded)
            key = self._next_key(prefix, folded[:-1] + chr(ord("/") + 1))

    async def create_upload(self, key: str, note: bytes) -> str:
        """See ``ObjectStore.create_upload``."""
        check_writable_key(key)
        upload = f"{next(self._uploads):032x}"
        self._staged[upload] = _Staged(bytearray())
        self._write_record(upload, UploadRecord(key=key, offset=0, note=note))
        return upload

    async def append_upload(
        self, upload: str, offset: int, data: AsyncIterable[bytes], note: Callable[[int], bytes]
    ) -> UploadInfo:
        """See ``ObjectStore.append_upload``. Whoever finds another writer at work is refused at once."""
        staged = self._claim(upload, offset)
        try:
            async for chunk in data:
                staged.data += chunk
        except BaseException:
            with contextlib.suppress(UploadNotFound):  # aborted meanwhile: what the data raised says more
                self._record_append(upload, note)
            raise
        else:
            return self._record_append(upload, note)
        finally:
            staged.busy = False

    async def stat_upload(self, upload: str) -> UploadInfo:
        """See ``ObjectStore.stat_upload``."""
        record = self._read_record(upload)
        modified = self._objects[record_key(upload)].info.modified
        return UploadInfo(record.key, record.offset, record.note, modified)

    async def commit_upload(self, upload: str, offset: int) -> ObjectInfo:
        """See ``ObjectStore.commit_upload``."""
        staged = self._claim(upload, offset)
        info = self._set(self._read_record(upload).key, bytes(staged.data))
        await self.abort_upload(upload)
        return info

    async def abort_upload(self, upload: str) -> None:
        """See ``ObjectStore.abort_upload``."""
        if self._staged.pop(upload, None) is not None:
            self._remove(record_key(upload))

    async def presign(self, key: str, ttl: int, *, headers: Mapping[str, str]) -> str | None:
        """None: memory has no address."""
        return None

    def batch(self) -> AbstractAsyncContextManager[None]:
        """See ``ObjectStore.batch``; nothing here is durable anyway."""
        return nullcontext()

    async def close(self) -> None:
        """Nothing to release; what was stored stays readable."""

    def _get(self, key: str) -> _Object:
        try:
            return self._objects[check_key(key)]
        except KeyError:
            raise KeyNotFound(key) from None

    def _version(self, key: str) -> str | None:
        found = self._objects.get(key)
        return None if found is None else found.info.version

    def _set(self, key: str, data: bytes) -> ObjectInfo:
        if key not in self._objects:
            self._refuse_nesting(key)
            bisect.insort(self._keys, key)
        info = ObjectInfo(key, len(data), f"{next(self._versions)}", self._clock())
        self._objects[key] = _Object(data, info)
        return info

    def _remove(self, key: str) -> None:
        del self._objects[key]
        del self._keys[bisect.bisect_left(self._keys, key)]

    def _refuse_nesting(self, key: str) -> None:
        # A directory on disk cannot be a file too; a test over memory has to learn that as well.
        parents = itertools.accumulate(key.split("/")[:-1], "{}/{}".format)
        below = self._next_key(key + "/", "")
        if below is not None or any(parent in self._objects for parent in parents):
            raise KeyInvalid(f"{key} would hold another key, or lie in one")

    def _first_key(self, prefix: str, after: str) -> str | None:
        return self._next_key(prefix, after + "\0" if after else "")

    def _next_key(self, prefix: str, least: str) -> str | None:
        place = bisect.bisect_left(self._keys, max(prefix, least))
        if place < len(self._keys) and self._keys[place].startswith(prefix):
            return self._keys[place]
        return None

    def _claim(self, upload: str, offset: int) -> _Staged:
        record = self._read_record(upload)
        staged = self._staged[upload]
        if staged.busy or record.offset != offset:
            raise OffsetMismatch(record.offset)
        staged.busy = True
        return staged

    def _read_record(self, upload: str) -> UploadRecord:
        found = self._objects.get(record_key(upload))
        if found is None:
            raise UploadNotFound(upload)
        return UploadRecord.decode(upload, found.data)

    def _write_record(self, upload: str, record: UploadRecord) -> UploadInfo:
        info = self._set(record_key(upload), record.encode())
        return UploadInfo(record.key, record.offset, record.note, info.modified)

    def _record_append(self, upload: str, note: Callable[[int], bytes]) -> UploadInfo:
        record = self._read_record(upload)
        offset = len(self._staged[upload].data)
        return self._write_record(upload, UploadRecord(key=record.key, offset=offset, note=note(offset)))
