"""What an S3 server promises, tried before anything relies on it.

Law: some servers take a condition and ignore it, so nothing is believed that was not seen to be refused. A store starts
only where everything in ``Findings.require`` holds; what is merely nice to have is noted.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from moorage.storage_backends.base import ABSENT, ANY, Expect
from moorage.storage_backends.errors import Conflict, StorageError, StorageUnavailable
from moorage.storage_backends.s3.calls import Calls, Doubtful, Refused
from moorage.storage_backends.s3.location import Location
from moorage.storage_backends.s3.multipart import Multipart
from moorage.storage_backends.s3.objects import Objects

__all__ = ["Findings", "probe"]

_ATTEMPTS: Final = 8
_RACERS: Final = 8
_MAX_SKEW: Final = 300.0
"""Seconds. Ages of links and uploads are compared with this machine's clock; AWS refuses signatures at 900."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was seen.

    ``encryption``: None where none was asked for; ``skew``: seconds that the server's clock is ahead of ours.
    """

    create_only: bool
    swap: bool
    listing: bool
    multipart: bool
    hash_etags: bool
    encryption: bool | None
    skew: float

    def require(self, location: Location) -> None:
        """Passes if the server keeps what we promise.

        Raises:
            StorageError: it does not.
        """
        missing = [text for holds, text, needed in self.lines() if needed and not holds]
        if missing:
            raise StorageError(f"{location} cannot hold a registry: no {'; no '.join(missing)}")

    def lines(self) -> Iterator[tuple[bool, str, bool]]:
        """Each promise: whether it holds, what it is, whether it is needed."""
        yield self.create_only, "create-only put (If-None-Match) that exactly one of several racing writers wins", True
        yield self.swap, "conditional put (If-Match) that refuses an old version", True
        yield self.listing, "list that shows at once what was written and deleted", True
        yield self.multipart, "multipart upload that can be listed by its key and aborted", True
        yield abs(self.skew) <= _MAX_SKEW, f"clock within {_MAX_SKEW:.0f} s of ours (it is {self.skew:+.0f} s)", True
        if self.encryption is not None:
            yield self.encryption, "encryption at rest as asked for (sse, kms_key)", True
        yield self.hash_etags, "ETag that is the hash of a small object, which shows torn reads", False


async def probe(calls: Calls, objects: Objects, multipart: Multipart, location: Location) -> Findings:
    """Tries the server with a few objects below ``probe/``, which are gone afterwards.

    Raises:
        StorageError: there is no such bucket, or the server does not answer, or does not let us in.
    """
    try:
        head = await calls.repeat("head_bucket")
    except Refused as exc:
        raise StorageError(f"there is no bucket {calls.bucket!r} ({exc.status} {exc.code})") from exc
    date = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
    for _ in range(_ATTEMPTS):
        # On a bad line a race may end without anybody knowing who won: that tells nothing, so there is another.
        with suppress(Doubtful):
            return await _try(calls, objects, multipart, location, date - time.time())
    raise StorageUnavailable("so many answers of S3 are lost that nothing can be found out about it")


async def _try(calls: Calls, objects: Objects, multipart: Multipart, location: Location, skew: float) -> Findings:
    place = f"probe/{secrets.token_hex(8)}"
    key = f"{place}/value"
    try:
        encryption = await _encrypts(calls, objects, f"{place}/secret", location)
        create_only, listing = await _races(objects, key), await _lists(objects, place, key)
        swap, etags = await _swaps(objects, key), await _hashes(objects, key)
    finally:
        with suppress(StorageUnavailable):  # whoever sees it fail knows why already
            await objects.delete(key)
    listing = listing and not [entry async for entry in objects.entries(f"{place}/")]
    uploads = await _aborts(multipart, calls, objects, f"{place}/upload")
    return Findings(create_only, swap, listing, uploads, etags, encryption, skew)


async def _races(objects: Objects, key: str) -> bool:
    attempts = (_wins(objects, key, b"%d" % number, ABSENT) for number in range(_RACERS))
    return sum(await asyncio.gather(*attempts)) == 1


async def _wins(objects: Objects, key: str, data: bytes, expect: Expect) -> bool:
    try:
        await objects.put(key, data, expect=expect)
    except (Conflict, Refused):
        return False
    return True


async def _lists(objects: Objects, place: str, key: str) -> bool:
    return [entry async for entry in objects.entries(f"{place}/")] == [await objects.stat(key)]


async def _swaps(objects: Objects, key: str) -> bool:
    old = (await objects.stat(key)).version
    first = await _wins(objects, key, b"swapped", old)
    return first and not await _wins(objects, key, b"swapped by an old version", old)


async def _hashes(objects: Objects, key: str) -> bool:
    info = await objects.put(key, b"hashed", expect=ANY)
    return info.version.strip('"') == hashlib.md5(b"hashed", usedforsecurity=False).hexdigest()


async def _encrypts(calls: Calls, objects: Objects, key: str, location: Location) -> bool | None:
    """Whether what was asked for was done: some servers take the headers and ignore them."""
    if location.sse is None:
        return None
    try:
        await objects.put(key, b"secret")
    except Refused as exc:
        raise StorageError(f"{location} does not encrypt as asked for (sse={location.sse}): {exc}") from exc
    info = await calls.repeat("head_object", Key=objects.remote(key))
    await objects.delete(key)
    has_key = location.kms_key is None or str(info.get("SSEKMSKeyId", "")).endswith(location.kms_key)
    return info.get("ServerSideEncryption") == location.sse and has_key


async def _aborts(multipart: Multipart, calls: Calls, objects: Objects, key: str) -> bool:
    upload, is_only = await multipart.create(key)
    seen = upload in await _listed(calls, objects, key)
    await multipart.abort(key, upload)
    gone = upload not in await _listed(calls, objects, key)
    if not is_only:
        await multipart.abort_strays(key)
    return seen and gone


async def _listed(calls: Calls, objects: Objects, key: str) -> list[str]:
    answer = await calls.repeat("list_multipart_uploads", Prefix=objects.remote(key))
    return [one["UploadId"] for one in answer.get("Uploads", ())]
