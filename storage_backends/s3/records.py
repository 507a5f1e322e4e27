"""Records of open uploads, by the id of the upload, changed by compare-and-swap."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from moorage.storage_backends.base import ABSENT, UploadInfo
from moorage.storage_backends.errors import KeyNotFound, OffsetMismatch, StorageError, UploadNotFound
from moorage.storage_backends.s3.objects import Objects
from moorage.storage_backends.s3.record import Held, Record
from moorage.storage_backends.upload_record import record_key

__all__ = ["Records", "describe_upload"]


_LATEST: Final = 256
"""Records kept between the look at an upload and what is then done with it."""


class Records:
    """The records below ``uploads/``."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._latest: OrderedDict[str, Held] = OrderedDict()

    async def create(self, upload: str, record: Record) -> None:
        """Stores the first record of an upload."""
        await self._objects.put(record_key(upload), record.encode(), expect=ABSENT)

    async def read(self, upload: str) -> Held:
        """The record of an upload that is not over.

        Raises:
            UploadNotFound: there is none.
        """
        held = await self.read_any(upload)
        if held.record.is_over:
            raise UploadNotFound(upload)
        self._latest[upload] = held
        if len(self._latest) > _LATEST:
            self._latest.popitem(last=False)
        return held

    async def latest(self, upload: str) -> Held:
        """The record as it was read a moment ago by ``read``, which a swap will try; read now if it was not.

        Raises:
            UploadNotFound: there is none.
        """
        held = self._latest.get(upload) or await self.read(upload)
        self._latest.pop(upload, None)
        return held

    async def read_any(self, upload: str) -> Held:
        """The record of an upload, be it over.

        Raises:
            UploadNotFound: there is none.
        """
        try:
            reading = await self._objects.read(record_key(upload))
        except KeyNotFound:
            raise UploadNotFound(upload) from None
        try:
            record = Record.decode(upload, b"".join([chunk async for chunk in reading]))
        finally:
            reading.close()
        return Held(record, reading.info.version, reading.info.modified)

    async def swap(self, upload: str, held: Held, record: Record) -> Held:
        """Puts ``record`` in the place of what is held.

        Whoever is refused has to read again: what he held may have been old.

        Raises:
            Conflict: it is no longer there.
        """
        self._latest.pop(upload, None)
        info = await self._objects.put(record_key(upload), record.encode(), expect=held.version)
        return Held(record, info.version, info.modified)

    async def lost(self, upload: str) -> StorageError:
        """What to tell whoever lost a swap: where the upload stands now, or that it is over."""
        try:
            held = await self.read(upload)
        except UploadNotFound as exc:
            return exc
        return OffsetMismatch(held.record.offset) if held.record.state == "open" else UploadNotFound(upload)

    async def forget(self, upload: str) -> None:
        """Removes the record."""
        await self._objects.delete(record_key(upload))


def describe_upload(held: Held) -> UploadInfo:
    """The record as the port tells it."""
    return UploadInfo(held.record.key, held.record.offset, held.record.note, held.modified)
