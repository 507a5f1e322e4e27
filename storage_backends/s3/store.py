"""``S3Store``: the storage port over a prefix of a bucket."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext, suppress
from typing import Final, Self

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
from moorage.storage_backends.errors import Conflict, KeyInvalid, OffsetMismatch, StorageError, UploadNotFound
from moorage.storage_backends.expectation import check_writable_key
from moorage.storage_backends.s3.calls import Calls
from moorage.storage_backends.s3.copies import Copies
from moorage.storage_backends.s3.location import Location
from moorage.storage_backends.s3.multipart import Multipart
from moorage.storage_backends.s3.objects import Objects
from moorage.storage_backends.s3.probe import Findings, probe
from moorage.storage_backends.s3.record import PART, Held, Piece, Record
from moorage.storage_backends.s3.records import Records, describe_upload
from moorage.storage_backends.s3.writer import Budget, Writer
from msgspec.structs import replace

__all__ = ["S3Store"]

_MEMORY: Final = 256 * 1024 * 1024
"""Bytes of parts that all uploads of a process may hold (reliability figures 5.2)."""

_OVERRIDES: Final = {
    "content-type": "ResponseContentType",
    "content-disposition": "ResponseContentDisposition",
    "cache-control": "ResponseCacheControl",
}
_ABORT_ATTEMPTS: Final = 10
_ORPHANED: Final = 24 * 3600.0
"""Seconds after which a piece that no upload needs is nobody's."""


class S3Store:
    """An ``ObjectStore`` in S3, made by ``await S3Store.open(location)``."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._calls = Calls(location)
        self._objects = Objects(self._calls, location)
        self._records = Records(self._objects)
        self._multipart = Multipart(self._calls, self._objects, location)
        self._copies = Copies(self._calls, self._objects, self._multipart, location)
        self._budget = Budget(_MEMORY)
        self.capabilities = Capabilities(False, PART, versions_are_hashes=True, presigns=True, concurrency=16)

    @classmethod
    async def open(cls, location: Location) -> Self:
        """The store at ``location``, once the server has shown that it keeps what we promise.

        Raises:
            StorageError: it does not; the message says which promise.
            StorageUnavailable: it does not answer, or does not let us in.
        """
        store = cls(location)
        try:
            found = await store.probe()
            found.require(location)
            await store._sweep()
        except BaseException:
            await store.close()
            raise
        store._objects.has_hash_etags = found.hash_etags
        return store

    def __repr__(self) -> str:
        return f"<S3Store {self._location}>"

    async def probe(self) -> Findings:
        """What the server promises, tried with a few small objects.

        Raises:
            StorageError: there is no such bucket, or the server does not answer, or does not let us in.
        """
        return await probe(self._calls, self._objects, self._multipart, self._location)

    async def stat(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.stat``."""
        return await self._objects.stat(check_key(key))

    @asynccontextmanager
    async def read(self, key: str, *, start: int = 0, stop: int | None = None) -> AsyncIterator[Reading]:
        """See ``ObjectStore.read``."""
        reading = await self._objects.read(check_key(key), start=start, stop=stop)
        try:
            yield reading
        finally:
            reading.close()

    async def put(self, key: str, data: bytes, *, expect: Expect = ANY) -> str:
        """See ``ObjectStore.put``."""
        return (await self._objects.put(check_writable_key(key), data, expect=expect)).version

    async def copy(self, src: str, dst: str) -> ObjectInfo:
        """See ``ObjectStore.copy``."""
        return await self._copies.copy(check_key(src), check_writable_key(dst))

    async def delete(self, key: str, *, expect: Expect = ANY) -> None:
        """See ``ObjectStore.delete``."""
        check_writable_key(key)
        if expect is not ANY:
            # MinIO ignores the condition. versitygw looks at it before it removes the object, whatever comes between.
            raise StorageError("S3 servers do not keep conditional deletes in a race")
        await self._objects.delete(key)

    async def list(
        self, prefix: str, *, after: str = "", delimiter: str | None = None
    ) -> AsyncIterator[ObjectInfo | CommonPrefix]:
        """See ``ObjectStore.list``."""
        check_prefix(prefix)
        if delimiter not in (None, "/"):
            raise KeyInvalid("keys are delimited by '/'")
        async with aclosing(self._objects.entries(prefix, after=after, delimiter=delimiter)) as entries:
            async for entry in entries:
                yield entry

    async def create_upload(self, key: str, note: bytes) -> str:
        """See ``ObjectStore.create_upload``."""
        check_writable_key(key)
        upload = secrets.token_hex(16)
        await self._records.create(upload, Record(key, note))
        return upload

    async def append_upload(
        self, upload: str, offset: int, data: AsyncIterable[bytes], note: Callable[[int], bytes]
    ) -> UploadInfo:
        """See ``ObjectStore.append_upload``."""
        held = await self._held_at(upload, offset)
        if held.record.state != "open":
            raise UploadNotFound(upload)
        writer = Writer(upload, held, records=self._records, multipart=self._multipart, budget=self._budget)
        try:
            try:
                async for chunk in data:
                    await writer.add(chunk)
            except BaseException:
                with suppress(StorageError):  # what broke the append says more than that nothing of it could be kept
                    await writer.finish(note, is_whole=False)
                raise
            return await writer.finish(note, is_whole=True)
        finally:
            await writer.close()

    async def stat_upload(self, upload: str) -> UploadInfo:
        """See ``ObjectStore.stat_upload``. One whose commit broke off can be committed again."""
        return describe_upload(await self._records.read(upload))

    async def commit_upload(self, upload: str, offset: int) -> ObjectInfo:
        """See ``ObjectStore.commit_upload``. Whoever finds a commit that broke off takes it over."""
        held = await self._held_at(upload, offset)
        number = held.record.next
        sealed = replace(held.record, state="sealed", assembling=True, next=number + 1)
        try:
            held = await self._records.swap(upload, held, sealed)
        except Conflict:
            raise await self._records.lost(upload) from None
        info = await self._assemble(held.record, number)
        try:
            held = await self._records.swap(upload, held, replace(held.record, state="done"))
        except Conflict:
            raise UploadNotFound(upload) from None  # somebody else ended it
        with suppress(StorageError):  # the object is there; what is left of the upload goes when it expires
            await self._clear(upload, held.record)
        return info

    async def _held_at(self, upload: str, offset: int) -> Held:
        held = await self._records.latest(upload)
        if held.record.offset != offset:  # what was read a moment ago may be old
            held = await self._records.read(upload)
        if held.record.offset != offset:
            raise OffsetMismatch(held.record.offset)
        return held

    async def _assemble(self, record: Record, number: int) -> ObjectInfo:
        """Makes the object of what the record points at; twice is as good as once."""
        if record.multipart is not None and record.last is not None:
            return await self._multipart.complete(
                record.key, record.multipart, (*record.parts, record.last), record.offset
            )
        tail = await self._multipart.read_pieces(record.tail) + record.inline
        if record.multipart is None:
            return await self._objects.put(record.key, tail)
        parts = list(record.parts)
        if tail:
            with suppress(UploadNotFound):  # completed before, as ``complete`` finds out
                parts.append(await self._multipart.send(record.key, record.multipart, number, tail))
        return await self._multipart.complete(record.key, record.multipart, parts, record.offset)

    async def abort_upload(self, upload: str) -> None:
        """See ``ObjectStore.abort_upload``. What was left by somebody who died while he ended it goes too."""
        for _ in range(_ABORT_ATTEMPTS):
            try:
                held = await self._records.read_any(upload)
            except UploadNotFound:
                return
            with suppress(Conflict):
                # The end comes first, so that nobody counts on what is then removed.
                if not held.record.is_over:
                    held = await self._records.swap(upload, held, replace(held.record, state="gone"))
                await self._clear(upload, held.record)
                return

    async def _clear(self, upload: str, record: Record) -> None:
        """Removes what an upload that is over left; its record goes last, so that whoever dies here is followed."""
        await self._multipart.clear(upload, record)
        await self._records.forget(upload)

    async def _sweep(self) -> None:
        """Removes old pieces of uploads that are no more: of a writer who outlived his upload."""
        async for upload, piece in self._multipart.leftovers():
            if piece.modified < time.time() - _ORPHANED:
                try:
                    await self._records.read_any(upload)
                except UploadNotFound:
                    await self._multipart.drop_pieces([Piece(piece.key, piece.size)])

    async def presign(self, key: str, ttl: int, *, headers: Mapping[str, str]) -> str | None:
        """See ``ObjectStore.presign``."""
        pinned = {_OVERRIDES[name.lower()]: value for name, value in headers.items()}
        return await self._calls.presign({"Key": self._objects.remote(check_key(key)), **pinned}, ttl)

    def batch(self) -> AbstractAsyncContextManager[None]:
        """See ``ObjectStore.batch``; S3 makes every single write durable before it answers."""
        return nullcontext()

    async def close(self) -> None:
        """See ``ObjectStore.close``."""
        self._calls.close()
