"""Objects under keys of ours, in a prefix of a bucket: facts, values, swaps, deletes and lists.

Law of swaps: a conditional put whose answer was lost is looked at, not repeated blindly. Every value carries a nonce of
its writer, and the nonce that is found there tells who won.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from email.utils import parsedate_to_datetime
from typing import Any, Final

from moorage.storage_backends.base import ABSENT, ANY, CommonPrefix, Expect, ObjectInfo
from moorage.storage_backends.errors import Conflict, KeyInvalid, KeyNotFound
from moorage.storage_backends.s3.calls import Calls, Refused, Uncertain
from moorage.storage_backends.s3.location import Location
from moorage.storage_backends.s3.reading import S3Reading, describe, open_reading

__all__ = ["Objects"]

_NONCE: Final = "moorage-nonce"
_NESTED: Final = frozenset({"ExistingObjectIsDirectory", "ObjectParentIsFile", "XMinioParentIsObject"})
"""What servers over a file system say when a key is a directory of another."""

_LAST: Final = "~"
"""Sorts behind every character that a key may have."""

_MAX_KEY: Final = 1024
_PART_OF_COPY: Final = 1024**3
_MAX_COPY: Final = 5 * 1024**3


class Objects:
    """The objects below one prefix. ``has_hash_etags``: set once the server was seen to give such."""

    def __init__(self, calls: Calls, location: Location) -> None:
        self._calls = calls
        self._prefix = location.prefix
        self._encryption = location.encryption
        self.has_hash_etags = False

    def remote(self, key: str) -> str:
        """What S3 calls the object.

        Raises:
            KeyInvalid: with our prefix it is longer than S3 takes.
        """
        if len(self._prefix) + len(key) > _MAX_KEY:
            raise KeyInvalid(f"longer than {_MAX_KEY} characters: {self._prefix}{key[:200]}")
        return self._prefix + key

    async def stat(self, key: str) -> ObjectInfo:
        """The object's facts.

        Raises:
            KeyNotFound: no such object.
        """
        try:
            return describe(key, await self._calls.repeat("head_object", Key=self.remote(key)))
        except Refused as exc:
            raise _missing(key, exc) from exc

    async def read(self, key: str, *, start: int = 0, stop: int | None = None) -> S3Reading:
        """Opens a range of an object; close it.

        Raises:
            KeyNotFound: no such object.
        """
        if stop is not None and stop <= start:
            info = await self.stat(key)
            return S3Reading(self._calls, self.remote(key), info, start=0, stop=0)
        try:
            return await open_reading(
                self._calls, key, self.remote(key), start=start, stop=stop, checked=self.has_hash_etags
            )
        except Refused as exc:
            raise _missing(key, exc) from exc

    async def put(self, key: str, data: bytes | bytearray, *, expect: Expect = ANY) -> ObjectInfo:
        """Stores a value; ``modified`` is when the server answered.

        Raises:
            Conflict: ``expect`` does not hold.
        """
        nonce, was_sent = secrets.token_hex(16), False
        arguments = {"Body": data, "Metadata": {_NONCE: nonce}, **self._encryption, **_condition(expect)}

        async def attempt() -> ObjectInfo:
            nonlocal was_sent
            if was_sent and (ours := await self._ours(key, nonce)) is not None:
                return ours
            try:
                answer = await self._calls.once("put_object", Key=self.remote(key), **arguments)
            except Uncertain:
                was_sent = True
                raise
            except Refused as exc:
                raise _lost(key, expect, exc) from exc
            return ObjectInfo(key, len(data), str(answer["ETag"]), _date_of(answer))

        stored: ObjectInfo = await self._calls.persist(attempt)
        return stored

    async def _ours(self, key: str, nonce: str) -> ObjectInfo | None:
        """The object, if it is the one that we sent and were not answered about."""
        try:
            answer = await self._calls.once("head_object", Key=self.remote(key))
        except Refused:
            return None
        return describe(key, answer) if answer.get("Metadata", {}).get(_NONCE) == nonce else None

    async def delete(self, key: str, *, expect: Expect = ANY) -> None:
        """Removes an object.

        Raises:
            Conflict: the object has another version.
        """
        condition = {} if expect is ANY else {"IfMatch": expect}
        try:
            await self._calls.repeat("delete_object", Key=self.remote(key), **condition)
        except Refused as exc:
            if exc.status == 412:
                raise Conflict(f"{key} is not of the version expected") from exc
            if exc.status != 404:
                raise

    async def copy(self, src: str, dst: str) -> ObjectInfo:
        """Copies within the bucket; objects beyond 5 GiB in parts.

        Raises:
            KeyNotFound: no such ``src``.
        """
        info = await self.stat(src)
        source = {"Bucket": self._calls.bucket, "Key": self.remote(src)}
        if info.size > _MAX_COPY:
            await self._copy_parts(source, dst, info.size)
        else:
            # An object is only copied onto itself if something about it changes.
            changes = {"MetadataDirective": "REPLACE", "Metadata": {_NONCE: secrets.token_hex(16)}}
            try:
                await self._calls.repeat(
                    "copy_object", CopySource=source, Key=self.remote(dst), **changes, **self._encryption
                )
            except Refused as exc:
                raise _missing(src, exc) from exc
        return await self.stat(dst)

    async def _copy_parts(self, source: dict[str, str], dst: str, size: int) -> None:
        remote = self.remote(dst)
        upload = (await self._calls.repeat("create_multipart_upload", Key=remote, **self._encryption))["UploadId"]
        parts = []
        for number, start in enumerate(range(0, size, _PART_OF_COPY), 1):
            span = f"bytes={start}-{min(start + _PART_OF_COPY, size) - 1}"
            place = {"Key": remote, "UploadId": upload, "PartNumber": number}
            answer = await self._calls.repeat("upload_part_copy", CopySource=source, CopySourceRange=span, **place)
            parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
        await self._calls.repeat(
            "complete_multipart_upload", Key=remote, UploadId=upload, MultipartUpload={"Parts": parts}
        )

    async def entries(
        self, prefix: str, *, after: str = "", delimiter: str | None = None
    ) -> AsyncGenerator[ObjectInfo | CommonPrefix, None]:
        """What lies under ``prefix``, in byte order, behind ``after``."""
        begin = _beyond_fold(prefix, after) if delimiter else after
        arguments: dict[str, Any] = {"Prefix": self.remote(prefix)}
        arguments |= {"Delimiter": delimiter} if delimiter else {}
        arguments |= {"StartAfter": self.remote(begin)} if begin else {}
        while True:
            answer = await self._calls.repeat("list_objects_v2", **arguments)
            found: list[ObjectInfo | CommonPrefix] = [*self._objects_of(answer), *self._prefixes_of(answer)]
            for entry in sorted(found, key=_name):
                if _name(entry) > after:
                    yield entry
            if not answer.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = answer["NextContinuationToken"]

    def _objects_of(self, answer: dict[str, Any]) -> list[ObjectInfo]:
        return [
            ObjectInfo(
                one["Key"].removeprefix(self._prefix),
                one["Size"],
                one["ETag"],
                float(int(one["LastModified"].timestamp())),
            )
            for one in answer.get("Contents", ())
        ]

    def _prefixes_of(self, answer: dict[str, Any]) -> list[CommonPrefix]:
        return [CommonPrefix(one["Prefix"].removeprefix(self._prefix)) for one in answer.get("CommonPrefixes", ())]


def _condition(expect: Expect) -> dict[str, str]:
    if expect is ANY:
        return {}
    return {"IfNoneMatch": "*"} if expect is ABSENT else {"IfMatch": str(expect)}


def _lost(key: str, expect: Expect, refused: Refused) -> Exception:
    """What a refused put means."""
    if refused.code in _NESTED:
        return KeyInvalid(f"{key} would hold another key, or lie in one")
    if refused.status == 409:
        return Uncertain(str(refused))  # somebody is at it right now (ConditionalRequestConflict): ask again
    if refused.status in (404, 412) and expect is not ANY and refused.code != "NoSuchBucket":
        return Conflict(f"{key} is not what was expected")
    return refused


def _date_of(answer: dict[str, Any]) -> float:
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()


def _missing(key: str, refused: Refused) -> Exception:
    return KeyNotFound(key) if refused.status == 404 and refused.code != "NoSuchBucket" else refused


def _name(entry: ObjectInfo | CommonPrefix) -> str:
    return entry.prefix if isinstance(entry, CommonPrefix) else entry.key


def _beyond_fold(prefix: str, after: str) -> str:
    """Where to start so that nothing of the common prefix that ``after`` lies in, or is, is listed again."""
    if not after.startswith(prefix):
        return after
    fold = after.find("/", len(prefix)) + 1
    return after[:fold] + _LAST if fold else after
