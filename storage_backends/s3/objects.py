"""Objects under keys of ours, in a prefix of a bucket: facts, values, swaps, deletes and lists.

Law of swaps: a conditional put whose answer was lost is looked at, not repeated blindly. Every value carries a nonce of
its writer, and the nonce that is found there tells who won. Where neither it nor what was expected is found, nobody can
tell, and that is what is said.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator
from email.utils import parsedate_to_datetime
from typing import Any, Final

from moorage.storage_backends.base import ABSENT, ANY, CommonPrefix, Expect, ObjectInfo
from moorage.storage_backends.errors import Conflict, KeyInvalid, KeyNotFound, StorageError, StorageUnavailable
from moorage.storage_backends.s3.body import Body
from moorage.storage_backends.s3.calls import Calls, Doubtful, Nested, Passing, Refused, Uncertain, Unsent
from moorage.storage_backends.s3.location import Location
from moorage.storage_backends.s3.reading import S3Reading, describe, open_reading

__all__ = ["NONCE", "Objects", "date_of", "missing"]

NONCE: Final = "moorage-nonce"
"""Metadata of everything we put: who wrote it."""

_NO_PLACE: Final = "ExistingObjectIsDirectory"
"""What versitygw says whatever keeps it from making a directory, or a file in one: a full disk, too."""

_BEING_PUT: Final = re.compile(r"(?:^|/)\.[^/]+\.sgwtmp\.[0-9]+$")
"""What versitygw calls a value for the moment in which it takes another one's place, or for ever if it dies then."""

_LAST: Final = "~"
"""Sorts behind every character that a key may have."""

_MAX_KEY: Final = 1024
_LARGE: Final = 1024 * 1024
"""Bytes of a value that may take long on a slow line."""


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
            raise missing(key, exc) from exc

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
            raise missing(key, exc) from exc

    async def put(self, key: str, data: bytes | bytearray, *, expect: Expect = ANY) -> ObjectInfo:
        """Stores a value; ``modified`` is when the server answered.

        Raises:
            Conflict: ``expect`` does not hold.
            Doubtful: it does not now, but may have before.
            KeyInvalid: the server is over a file system, and the key would hold another key, or lie in one.
            StorageUnavailable: the server takes no put now.
        """
        nonce, was_sent, is_long = secrets.token_hex(16), False, len(data) >= _LARGE
        arguments = {"Metadata": {NONCE: nonce}, **self._encryption, **_condition(expect)}

        async def attempt() -> ObjectInfo:
            nonlocal was_sent
            if was_sent and (ours := await self._ours(key, nonce)) is not None:
                return ours
            try:
                answer = await self._calls.once(
                    "put_object", is_long=is_long, Key=self.remote(key), Body=Body(data), **arguments
                )
            except Uncertain as exc:
                was_sent = was_sent or not isinstance(exc, Unsent)
                raise
            except Refused as exc:
                lost = _lost(key, expect, exc)
                if was_sent and isinstance(lost, Conflict):
                    return await self._found_or_doubtful(key, nonce)
                raise lost from exc
            return ObjectInfo(key, len(data), str(answer["ETag"]), date_of(answer))

        try:
            return await (self._calls.endure(attempt) if is_long else self._calls.persist(attempt))
        except Nested as exc:
            raise await self._in_the_way(key, exc) from exc

    async def _in_the_way(self, key: str, nested: Nested) -> StorageError:
        """What kept the server from a put: another key, or trouble of its own."""
        if nested.code == _NO_PLACE:
            below = await self._calls.repeat("list_objects_v2", Prefix=f"{self.remote(key)}/", MaxKeys=1)
            if not below.get("Contents"):
                return StorageUnavailable(f"{nested}, but nothing is in the way: is the disk of the server full?")
        return KeyInvalid(f"{key} would hold another key, or lie in one")

    async def _found_or_doubtful(self, key: str, nonce: str) -> ObjectInfo:
        """The object, if it is the one that we sent before.

        Raises:
            Doubtful: it is not. Ours may have been there and been replaced, so this is no lost race: who took
                it for one and tried again would write twice.
        """
        if (ours := await self._ours(key, nonce)) is not None:
            return ours
        raise Doubtful(f"{key} may have been written, and replaced since: the answer of S3 was lost")

    async def _ours(self, key: str, nonce: str) -> ObjectInfo | None:
        """The object, if it is the one that we sent and were not answered about."""
        try:
            answer = await self._calls.once("head_object", Key=self.remote(key))
        except Refused:
            return None
        return describe(key, answer) if answer.get("Metadata", {}).get(NONCE) == nonce else None

    async def delete(self, key: str) -> None:
        """Removes an object."""
        try:
            await self._calls.repeat("delete_object", Key=self.remote(key))
        except Refused as exc:
            if exc.status != 404:
                raise

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
            if not _BEING_PUT.search(one["Key"])
        ]

    def _prefixes_of(self, answer: dict[str, Any]) -> list[CommonPrefix]:
        return [CommonPrefix(one["Prefix"].removeprefix(self._prefix)) for one in answer.get("CommonPrefixes", ())]


def _condition(expect: Expect) -> dict[str, str]:
    if expect is ANY:
        return {}
    return {"IfNoneMatch": "*"} if expect is ABSENT else {"IfMatch": str(expect)}


def _lost(key: str, expect: Expect, refused: Refused) -> Exception:
    """What a refused put means."""
    if refused.status == 409:
        return Uncertain(str(refused))  # somebody is at it right now (ConditionalRequestConflict): ask again
    if refused.code == "NoSuchKey" and (expect is ANY or expect is ABSENT):
        return Passing(str(refused))  # MinIO, when a delete takes the directories that it made for the object
    if refused.status in (404, 412) and expect is not ANY and refused.code != "NoSuchBucket":
        return Conflict(f"{key} is not what was expected")
    return refused


def date_of(answer: dict[str, Any]) -> float:
    """When the server answered, as Unix time."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()


def missing(key: str, refused: Refused) -> Exception:
    """What a refused read means."""
    return KeyNotFound(key) if refused.status == 404 and refused.code != "NoSuchBucket" else refused


def _name(entry: ObjectInfo | CommonPrefix) -> str:
    return entry.prefix if isinstance(entry, CommonPrefix) else entry.key


def _beyond_fold(prefix: str, after: str) -> str:
    """Where to start so that nothing of the common prefix that ``after`` lies in, or is, is listed again."""
    if not after.startswith(prefix):
        return after
    fold = after.find("/", len(prefix)) + 1
    return after[:fold] + _LAST if fold else after
