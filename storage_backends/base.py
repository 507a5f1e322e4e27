"""The storage port: bytes under keys, in twelve primitives shaped like an object store.

Law of keys: flat, ``/``-separated, ASCII; no key is a directory of another. ``check_key`` guards both directions.
Law of visibility: an object appears, changes and goes at once and whole; a write that returned is durable, power cut
included (inside ``batch()``: when the block ends).
Law of writers: ``put`` compares and swaps; uploads keep their state in the store, so any process may go on with any
upload, and a late writer never changes committed bytes.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from moorage.storage_backends.errors import KeyInvalid

__all__ = [
    "ABSENT",
    "ANY",
    "UPLOADS",
    "Capabilities",
    "CommonPrefix",
    "Expect",
    "Expectation",
    "FileSpan",
    "ObjectInfo",
    "ObjectStore",
    "Reading",
    "UploadInfo",
    "check_key",
    "check_prefix",
    "read_all",
]

UPLOADS: Final = "uploads/"
"""Records of open uploads: ``uploads/<upload>``. They list like any object; only the upload verbs write them."""

_COMPONENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9!._=+-]{1,255}"
_KEY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_PREFIX = re.compile(rf"(?:{_COMPONENT}/)*(?:[A-Za-z0-9!._=+-]{{0,255}})")
_MAX_KEY = 1024


class Expectation(Enum):
    """What a key must hold for a write to happen, besides a given version."""

    ANY = "any"
    ABSENT = "absent"


ANY: Final = Expectation.ANY
ABSENT: Final = Expectation.ABSENT
Expect = Expectation | str
"""``ANY``, ``ABSENT``, or the version that the object must have."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object. ``size``: bytes; ``version``: opaque, new with every write (or, see
    ``Capabilities``, with every change); ``modified``: Unix time, by the store."""

    key: str
    size: int
    version: str
    modified: float


@dataclass(frozen=True, slots=True)
class CommonPrefix:
    """Stands in a listing for every key that begins with ``prefix``; it ends with the delimiter."""

    prefix: str


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """An open upload: where its bytes will appear, how many it has, and what the owner noted with them."""

    key: str
    offset: int
    note: bytes
    modified: float


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store keeps beyond the contract.

    ``conditional_delete``: ``delete(expect=version)`` is honoured under a race.
    ``min_append``: bytes below which an append that is not the last costs extra (0: none).
    ``versions_are_hashes``: writing the same bytes again is no new version, so whoever swaps and must not miss a write
    in between puts a nonce into the value.
    ``presigns``: ``presign`` gives URLs.
    ``concurrency``: how many calls for one request are worth having under way at once.
    ``writable``: False where whoever opened it asked for no writes, and none would succeed.
    """

    conditional_delete: bool
    min_append: int = 0
    versions_are_hashes: bool = False
    presigns: bool = False
    concurrency: int = 1
    writable: bool = True


@dataclass(frozen=True, slots=True)
class FileSpan:
    """Bytes ``start`` up to, not including, ``stop`` of a file, whose descriptor is open while the reading is."""

    descriptor: int
    start: int
    stop: int

    def fileno(self) -> int:
        """The descriptor, as the system calls want it."""
        return self.descriptor


class Reading(Protocol):
    """An open object: ``info`` is known before the first byte. Iterate it once; chunks are at most 1 MiB."""

    info: ObjectInfo

    def file(self) -> FileSpan | None:
        """What iterating would bring, as a file for the kernel to send; None where there is no such file."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes of the range, in order."""


class ObjectStore(Protocol):
    """Bytes under keys. Every method may also raise ``StorageUnavailable``, every write ``StorageFull``."""

    capabilities: Capabilities

    async def stat(self, key: str) -> ObjectInfo:
        """The object's facts.

        Raises:
            KeyNotFound: no such object.
        """

    def read(self, key: str, *, start: int = 0, stop: int | None = None) -> AbstractAsyncContextManager[Reading]:
        """Opens bytes ``start`` up to, not including, ``stop`` (None: the end); a range beyond the end is cut.

        One version is read from the first byte to the last, whatever is put meanwhile.

        Raises:
            KeyNotFound: no such object.
        """

    async def put(self, key: str, data: bytes, *, expect: Expect = ANY) -> str:
        """Stores a small value, all or nothing, and returns its version.

        Raises:
            Conflict: ``expect`` does not hold. Of several writers with the same ``expect`` exactly one wins.
        """

    async def copy(self, src: str, dst: str) -> ObjectInfo:
        """Makes ``dst`` hold what ``src`` holds, within the store where possible. An existing ``dst`` is replaced.

        Raises:
            KeyNotFound: no such ``src``.
        """

    async def delete(self, key: str, *, expect: Expect = ANY) -> None:
        """Removes an object. Idempotent. A version in ``expect`` needs ``capabilities.conditional_delete``.

        Raises:
            Conflict: the object has another version.
        """

    def list(
        self, prefix: str, *, after: str = "", delimiter: str | None = None
    ) -> AsyncIterator[ObjectInfo | CommonPrefix]:
        """What lies under ``prefix``, in byte order of the whole key, strictly behind ``after``; lazily.

        With the delimiter ``/``, keys that have one behind the prefix are folded into their ``CommonPrefix``, which is
        left out if it is at or before ``after``. Keys written or deleted meanwhile may or may not show.
        """

    async def create_upload(self, key: str, note: bytes) -> str:
        """Opens an upload whose bytes will appear at ``key``; returns its id (32 hex digits). Not yet durable."""

    async def append_upload(
        self, upload: str, offset: int, data: AsyncIterable[bytes], note: Callable[[int], bytes]
    ) -> UploadInfo:
        """Adds ``data`` at ``offset``; offset and note change together.

        If ``data`` raises, what arrived is kept and recorded, then the exception goes on. What was recorded survives a
        kill of every process; after a power cut the upload stands where its record says or is unknown.

        Args:
            note: called with the new offset, after the last byte was taken; its answer becomes the note.

        Raises:
            UploadNotFound: no such upload.
            OffsetMismatch: it stands elsewhere, or another writer has it; nothing was changed.
        """

    async def stat_upload(self, upload: str) -> UploadInfo:
        """How far the upload is.

        Raises:
            UploadNotFound: no such upload.
        """

    async def commit_upload(self, upload: str, offset: int) -> ObjectInfo:
        """Makes the bytes appear at the upload's key; the upload is gone. Of several committers one wins.

        Raises:
            UploadNotFound: no such upload.
            OffsetMismatch: it does not stand at ``offset``; nothing was changed.
        """

    async def abort_upload(self, upload: str) -> None:
        """Drops the upload and its bytes. Idempotent."""

    async def presign(self, key: str, ttl: int, *, headers: Mapping[str, str]) -> str | None:
        """A URL from which anyone may GET the object for ``ttl`` seconds, with these headers; None: serve it."""

    def batch(self) -> AbstractAsyncContextManager[None]:
        """Inside the block writes become visible in order as ever, and all of them durable together when it ends.

        A crash inside the block may keep any of them. A value written over an old one is whole, old or new.
        """

    async def close(self) -> None:
        """Releases what the store holds."""


def check_key(key: str) -> str:
    """``key``, if it may be one: components of letters, digits and ``!._=+-``, 255 characters each, 1,024 in all.

    Raises:
        KeyInvalid: it may not.
    """
    if len(key) > _MAX_KEY or _KEY.fullmatch(key) is None:
        raise KeyInvalid(f"not a storage key: {key[:200]!r}")
    return key


def check_prefix(prefix: str) -> str:
    """``prefix``, if a key can begin with it.

    Raises:
        KeyInvalid: none can.
    """
    if len(prefix) > _MAX_KEY or _PREFIX.fullmatch(prefix) is None:
        raise KeyInvalid(f"not a prefix of storage keys: {prefix[:200]!r}")
    return prefix


async def read_all(store: ObjectStore, key: str) -> tuple[bytes, ObjectInfo]:
    """The whole of a small object, and its facts.

    Raises:
        KeyNotFound: no such object.
    """
    async with store.read(key) as reading:
        return b"".join([chunk async for chunk in reading]), reading.info
