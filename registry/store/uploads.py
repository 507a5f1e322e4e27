"""Upload sessions: bytes stream straight to where they will stay, and are hashed on the way.

Law: the session's state is in the store, so any worker goes on with any session (promise M7). Kept in memory is only a
running hash, which cannot be stored; what it says so far is noted with the offset, so a closing request elsewhere needs
no second read. Where bytes came through several workers, or the digest names another algorithm than was hashed, the
bytes are read back after they were sealed and before anything refers to them (rule A16).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import AsyncIterable
from dataclasses import asdict, dataclass
from typing import Final

from moorage.registry.oci import (
    ALGORITHMS,
    CANONICAL,
    BlobUnknown,
    BlobUploadUnknown,
    Descriptor,
    Digest,
    DigestInvalid,
    Hasher,
    RangeInvalid,
    RepositoryName,
    UploadStatus,
)
from moorage.registry.store import layout
from moorage.registry.store.blobs import Blobs, StoredBlob
from moorage.registry.store.hashing import HashedContent, update
from moorage.storage_backends.base import UPLOADS, ObjectInfo, ObjectStore, UploadInfo
from moorage.storage_backends.errors import OffsetMismatch, UploadNotFound
from moorage.storage_backends.pieces import Pieces

__all__ = ["Uploads"]

_LIVE: Final = 4096
"""Most running hashes kept; a session whose hash was dropped is read back when it is closed."""


@dataclass(frozen=True, slots=True)
class _Note:
    """What we keep with an upload's offset. ``hex``: the hash of its bytes so far; None where it is not known."""

    repository: str
    generation: str
    algorithm: str
    hex: str | None

    def encode(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode()


class Uploads:
    """The sessions of all repositories."""

    def __init__(self, store: ObjectStore, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs
        self._live: OrderedDict[str, tuple[int, Hasher]] = OrderedDict()
        self._pieces = Pieces()

    async def start(self, repository: RepositoryName, algorithm: str | None) -> UploadStatus:
        """Opens a session; see ``Uploader.start_upload``."""
        chosen = ALGORITHMS.get(algorithm or CANONICAL)
        if chosen is None:
            raise DigestInvalid(f"unsupported algorithm (supported: {', '.join(ALGORITHMS)})")
        generation = layout.new_generation()
        note = _Note(str(repository), generation, chosen.name, chosen.new().hexdigest())
        upload = await self._store.create_upload(layout.data(generation), note.encode())
        return UploadStatus(upload, 0, self._store.capabilities.min_append)

    async def status(self, repository: RepositoryName, upload: str) -> UploadStatus:
        """How far a session is; see ``Uploader.upload_status``."""
        info, _ = await self._find(repository, upload)
        return self._status(upload, info)

    async def append(
        self, repository: RepositoryName, upload: str, content: AsyncIterable[bytes], start: int | None
    ) -> UploadStatus:
        """Adds bytes; see ``Uploader.append_upload``."""
        info, note = await self._find(repository, upload)
        if start is not None and start != info.offset:
            raise _out_of_order(upload, info.offset)
        hashed = HashedContent(content, info.offset, self._hasher(upload, info.offset, note), self._pieces)
        try:
            with self._pieces.transfer():
                info = await self._store.append_upload(
                    upload, info.offset, hashed, lambda offset: _noted(note, hashed, offset).encode()
                )
        except OffsetMismatch as exc:
            raise _out_of_order(upload, exc.offset) from None
        except UploadNotFound:
            raise _unknown(upload) from None
        self._keep(upload, info.offset, hashed)
        return self._status(upload, info)

    async def finish(self, repository: RepositoryName, upload: str, digest: Digest) -> Descriptor:
        """Closes a session; see ``Uploader.finish_upload``."""
        info, note = await self._find(repository, upload)
        self._live.pop(upload, None)
        known = note.hex if note.algorithm == digest.algorithm else None
        if known is not None and known != digest.hex:
            await self._store.abort_upload(upload)
            raise _mismatch(digest)
        async with self._store.batch():
            await self._commit(upload, info.offset)
            if known is None and await self._hash_stored(note.generation, digest) != digest.hex:
                await self._store.delete(layout.data(note.generation))
                raise _mismatch(digest)
            try:
                return await self._blobs.add(repository, digest, StoredBlob(note.generation, info.offset))
            except BlobUnknown:
                raise _unknown(upload) from None

    async def cancel(self, repository: RepositoryName, upload: str) -> None:
        """Drops a session; see ``Uploader.cancel_upload``."""
        await self._find(repository, upload)
        self._live.pop(upload, None)
        await self._store.abort_upload(upload)

    async def expire(self, older_than: float, now: float) -> int:
        """Drops every session without progress for ``older_than`` seconds; returns how many."""
        abandoned = [
            entry.key.removeprefix(UPLOADS)
            async for entry in self._store.list(UPLOADS)
            if isinstance(entry, ObjectInfo) and entry.modified < now - older_than
        ]
        return sum([await self._drop(upload, now - older_than) for upload in abandoned])

    async def _drop(self, upload: str, before: float) -> bool:
        """Drops a session that made no progress since ``before``, which it may have since it was listed."""
        try:
            abandoned = (await self._store.stat_upload(upload)).modified < before
        except UploadNotFound:  # gone, or torn, or something that was never ours and that the store will not touch
            await self._store.abort_upload(upload)
            return False
        if abandoned:
            self._live.pop(upload, None)
            await self._store.abort_upload(upload)
        return abandoned

    async def _commit(self, upload: str, offset: int) -> None:
        try:
            await self._store.commit_upload(upload, offset)
        except OffsetMismatch as exc:
            raise _out_of_order(upload, exc.offset) from None
        except UploadNotFound:
            raise _unknown(upload) from None

    async def _find(self, repository: RepositoryName, upload: str) -> tuple[UploadInfo, _Note]:
        """The session, if it belongs to this repository (rule A15)."""
        try:
            info = await self._store.stat_upload(upload)
        except UploadNotFound:
            raise _unknown(upload) from None
        note = _Note(**json.loads(info.note))
        if note.repository != repository.value:
            raise _unknown(upload)
        return info, note

    async def _hash_stored(self, generation: str, digest: Digest) -> str:
        hasher = digest.hasher()
        async with self._store.read(layout.data(generation)) as reading:
            async for chunk in reading:
                await update(hasher, chunk)
        return hasher.hexdigest()

    def _hasher(self, upload: str, offset: int, note: _Note) -> Hasher | None:
        """The running hash of the session's first ``offset`` bytes; None where this worker does not have it."""
        kept = self._live.pop(upload, None)
        if kept is not None and kept[0] == offset:
            return kept[1]
        return ALGORITHMS[note.algorithm].new() if offset == 0 else None

    def _keep(self, upload: str, offset: int, hashed: HashedContent) -> None:
        """Keeps the running hash of bytes that are recorded; of others nobody knows what will be at their offset."""
        if hashed.hasher is None or hashed.offset != offset:
            return
        self._live[upload] = (offset, hashed.hasher)
        if len(self._live) > _LIVE:
            self._live.popitem(last=False)

    def _status(self, upload: str, info: UploadInfo) -> UploadStatus:
        return UploadStatus(upload, info.offset, self._store.capabilities.min_append)


def _noted(note: _Note, content: HashedContent, offset: int) -> _Note:
    return _Note(note.repository, note.generation, note.algorithm, content.hex(offset))


def _unknown(upload: str) -> BlobUploadUnknown:
    return BlobUploadUnknown(detail={"upload": upload[:64]})


def _out_of_order(upload: str, offset: int) -> RangeInvalid:
    return RangeInvalid(f"the upload stands at byte {offset}", detail={"upload": upload, "offset": offset})


def _mismatch(digest: Digest) -> DigestInvalid:
    return DigestInvalid("content does not have this digest", detail={"digest": str(digest)})
