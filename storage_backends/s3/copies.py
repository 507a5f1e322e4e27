"""Copies within a bucket: by the server, whole up to 5 GiB, in parts beyond.

Law: one version of the source, from the first byte to the last; a copy that fails leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import Final

from moorage.storage_backends.base import ObjectInfo
from moorage.storage_backends.errors import StorageError, StorageUnavailable
from moorage.storage_backends.s3.calls import Calls, Refused
from moorage.storage_backends.s3.location import Location
from moorage.storage_backends.s3.multipart import Multipart
from moorage.storage_backends.s3.objects import NONCE, Objects, missing
from moorage.storage_backends.s3.record import Part

__all__ = ["Copies"]

_MOST_AT_ONCE: Final = 5 * 1024**3
"""Bytes that CopyObject takes (AWS: "Copying objects")."""

_PART: Final = 1024**3
_TOGETHER: Final = 4


class Copies:
    """Copies objects. ``most_at_once``: bytes beyond which it is done in parts of ``part`` bytes."""

    def __init__(self, calls: Calls, objects: Objects, multipart: Multipart, location: Location) -> None:
        self._calls = calls
        self._objects = objects
        self._multipart = multipart
        self._encryption = location.encryption
        self.most_at_once = _MOST_AT_ONCE
        self.part = _PART

    async def copy(self, src: str, dst: str) -> ObjectInfo:
        """Makes ``dst`` hold what ``src`` holds.

        Raises:
            KeyNotFound: no such ``src``.
        """
        info = await self._objects.stat(src)
        try:
            if info.size > self.most_at_once:
                return await self._in_parts(info, dst)
            await self._whole(src, dst)
        except Refused as exc:
            if exc.status == 412:
                raise StorageUnavailable(f"{src} was replaced while it was copied") from exc
            raise missing(src, exc) from exc
        return await self._objects.stat(dst)

    async def _whole(self, src: str, dst: str) -> None:
        # An object is only copied onto itself if something about it changes.
        changes = {"MetadataDirective": "REPLACE", "Metadata": {NONCE: secrets.token_hex(16)}}
        await self._calls.carry(
            "copy_object", CopySource=self._source(src), Key=self._objects.remote(dst), **changes, **self._encryption
        )

    async def _in_parts(self, source: ObjectInfo, dst: str) -> ObjectInfo:
        multipart, _ = await self._multipart.create(dst)
        try:
            starts = range(0, source.size, self.part)
            parts: list[Part] = []
            for first in range(0, len(starts), _TOGETHER):
                batch = enumerate(starts[first : first + _TOGETHER], first + 1)
                parts += await asyncio.gather(*(self._part(source, dst, multipart, *one) for one in batch))
            return await self._multipart.complete(dst, multipart, parts, source.size)
        except BaseException:
            with suppress(StorageError):  # what broke the copy says more
                await asyncio.shield(self._multipart.abort(dst, multipart))
            raise

    async def _part(self, source: ObjectInfo, dst: str, multipart: str, number: int, start: int) -> Part:
        stop = min(start + self.part, source.size)
        answer = await self._calls.carry(
            "upload_part_copy",
            CopySource=self._source(source.key),
            CopySourceRange=f"bytes={start}-{stop - 1}",
            CopySourceIfMatch=source.version,
            Key=self._objects.remote(dst),
            UploadId=multipart,
            PartNumber=number,
        )
        return Part(number, str(answer["CopyPartResult"]["ETag"]), stop - start)

    def _source(self, key: str) -> dict[str, str]:
        return {"Bucket": self._calls.bucket, "Key": self._objects.remote(key)}
