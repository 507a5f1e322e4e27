"""S3's multipart uploads and the pieces of a tail: what an upload's record points at.

Rule: an id of a multipart upload is kept in our record and never looked for, except to find what somebody left behind
who died while making one; then the list of the one exact key is asked, which every server can answer.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from moorage.storage_backends.base import ObjectInfo
from moorage.storage_backends.errors import KeyNotFound, UploadNotFound
from moorage.storage_backends.s3.body import Body
from moorage.storage_backends.s3.calls import Calls, Refused, Uncertain, Unsent
from moorage.storage_backends.s3.location import Location
from moorage.storage_backends.s3.objects import Objects, date_of
from moorage.storage_backends.s3.record import Part, Piece, Record

__all__ = ["Multipart"]

_TAILS: Final = "tails/"
_MOST_RECENT: Final = 32 * 1024 * 1024
"""Bytes of pieces kept in memory, so that the usual push of a small layer does not read back what it just wrote."""

_GONE = frozenset({"NoSuchUpload", "InvalidPart", "NoSuchKey"})


class Multipart:
    """Parts and pieces in the bucket."""

    def __init__(self, calls: Calls, objects: Objects, location: Location) -> None:
        self._calls = calls
        self._objects = objects
        self._encryption = location.encryption
        self._recent = _Recent()

    async def create(self, key: str) -> tuple[str, bool]:
        """Begins a multipart upload to ``key``; returns S3's id of it, and whether it is surely the only one begun."""
        tries = 0

        async def attempt() -> str:
            nonlocal tries
            tries += 1
            answer = await self._calls.once(
                "create_multipart_upload",
                Key=self._objects.remote(key),
                ContentType="application/octet-stream",
                **self._encryption,
            )
            return str(answer["UploadId"])

        return await self._calls.persist(attempt), tries == 1

    async def send(self, key: str, multipart: str, number: int, data: bytes | bytearray) -> Part:
        """Sends a part.

        Raises:
            UploadNotFound: it was aborted or completed meanwhile.
        """
        try:
            place = {"Key": self._objects.remote(key), "UploadId": multipart, "PartNumber": number}
            answer = await self._calls.endure(
                lambda: self._calls.once("upload_part", is_long=True, Body=Body(data), **place)
            )
        except Refused as exc:
            raise _gone(exc) from exc
        return Part(number, str(answer["ETag"]), len(data))

    async def complete(self, key: str, multipart: str, parts: Sequence[Part], size: int) -> ObjectInfo:
        """Makes the object of its parts. Where S3 no longer knows the upload, an object of its size is the outcome of
        an earlier call whose answer was lost.

        Raises:
            UploadNotFound: neither the upload nor such an object is there.
        """
        listed = {"Parts": [{"PartNumber": part.number, "ETag": part.etag} for part in parts]}
        place = {"Key": self._objects.remote(key), "UploadId": multipart, "MultipartUpload": listed}
        was_sent = False

        async def attempt() -> ObjectInfo:
            nonlocal was_sent
            if was_sent:
                # Not asked again while it may be under way: versitygw carries it out twice, and was seen without the
                # object afterwards.
                with suppress(UploadNotFound):
                    return await self._completed_before(key, size)
            try:
                answer = await self._calls.once("complete_multipart_upload", is_long=True, **place)
            except Uncertain as exc:
                was_sent = was_sent or not isinstance(exc, Unsent)
                raise
            except Refused as exc:
                if exc.code not in _GONE:
                    raise
                return await self._completed_before(key, size)
            return ObjectInfo(key, size, str(answer["ETag"]), date_of(answer))

        return await self._calls.endure(attempt)

    async def _completed_before(self, key: str, size: int) -> ObjectInfo:
        try:
            info = await self._objects.stat(key)
        except KeyNotFound:
            raise UploadNotFound(key) from None
        if info.size != size:
            raise UploadNotFound(key)
        return info

    async def put_piece(self, upload: str, data: bytes) -> Piece:
        """Stores a piece of a tail under a name of its own."""
        key = f"{_TAILS}{upload}.{secrets.token_hex(8)}"
        await self._objects.put(key, data)
        self._recent.keep(key, data)
        return Piece(key, len(data))

    async def read_pieces(self, pieces: Sequence[Piece]) -> bytes:
        """The tail.

        Raises:
            UploadNotFound: a piece is gone, and so is the upload.
        """
        return b"".join(await asyncio.gather(*map(self._read_piece, pieces)))

    async def _read_piece(self, piece: Piece) -> bytes:
        if (data := self._recent.get(piece.key)) is not None:
            return data
        try:
            reading = await self._objects.read(piece.key)
        except KeyNotFound:
            raise UploadNotFound(piece.key) from None
        try:
            return b"".join([chunk async for chunk in reading])
        finally:
            reading.close()

    async def drop_pieces(self, pieces: Iterable[Piece]) -> None:
        """Removes pieces that nothing points at any more."""
        await asyncio.gather(*(self._drop_piece(piece.key) for piece in pieces))

    async def _drop_piece(self, key: str) -> None:
        self._recent.drop(key)
        await self._objects.delete(key)

    async def clear(self, upload: str, record: Record) -> None:
        """Removes all that an upload which is over left, but for what it made of it."""
        if record.state == "gone" and record.multipart is not None:
            await self.abort(record.key, record.multipart)
        if record.opening:
            await self.abort_strays(record.key)
        if record.state == "gone":
            # Pieces may lie here that no record ever pointed at: of a writer who died, or heard nothing of his swap.
            async for entry in self._objects.entries(f"{_TAILS}{upload}."):
                if isinstance(entry, ObjectInfo):
                    await self._drop_piece(entry.key)
            if record.assembling:
                await self._objects.delete(record.key)
        else:
            await self.drop_pieces(record.tail)

    async def leftovers(self) -> AsyncIterator[tuple[str, ObjectInfo]]:
        """Every piece, with the upload that it belonged to."""
        async for entry in self._objects.entries(_TAILS):
            if isinstance(entry, ObjectInfo):
                yield entry.key.removeprefix(_TAILS).partition(".")[0], entry

    async def abort(self, key: str, multipart: str) -> None:
        """Drops a multipart upload and its parts. Idempotent."""
        try:
            await self._calls.repeat("abort_multipart_upload", Key=self._objects.remote(key), UploadId=multipart)
        except Refused as exc:
            if exc.code != "NoSuchUpload":
                raise

    async def abort_strays(self, key: str) -> None:
        """Drops every multipart upload to ``key``."""
        remote = self._objects.remote(key)
        answer: dict[str, Any] = await self._calls.repeat("list_multipart_uploads", Prefix=remote)
        for one in answer.get("Uploads", ()):
            if one["Key"] == remote:
                await self.abort(key, one["UploadId"])


class _Recent:
    """Pieces that were written by us a moment ago and will soon be read: never changed, so never wrong."""

    def __init__(self) -> None:
        self._pieces: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def keep(self, key: str, data: bytes) -> None:
        self._pieces[key] = data
        self._size += len(data)
        while self._size > _MOST_RECENT:
            self._size -= len(self._pieces.popitem(last=False)[1])

    def get(self, key: str) -> bytes | None:
        return self._pieces.get(key)

    def drop(self, key: str) -> None:
        self._size -= len(self._pieces.pop(key, b""))


def _gone(refused: Refused) -> Exception:
    return UploadNotFound(refused.code) if refused.code in _GONE else refused
