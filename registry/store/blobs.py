"""Blobs: links grant access (``links.py``), markers give the place.

Law of writers: whoever lets something rely on a blob writes the edge first, then reads the generation's doom, then
looks whether its bytes are still there, in that order (DESIGN 4). We look at the bytes rather than at the marker: the
collector removes both before the doom, and a power cut on a file system that does not keep the order of directory
entries may leave a marker alone.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from moorage.registry.oci import BlobLocation, BlobUnknown, Descriptor, Digest, RepositoryName
from moorage.registry.oci.media_types import OCTET_STREAM
from moorage.registry.store import layout
from moorage.registry.store.border import refusals
from moorage.registry.store.links import Links
from moorage.registry.store.side_by_side import side_by_side
from moorage.storage_backends.base import FileSpan, ObjectInfo, ObjectStore, Reading
from moorage.storage_backends.errors import KeyNotFound

__all__ = ["Blobs", "StoredBlob"]

_PLACES: Final = 65536
_LISTINGS: Final = 5
"""How often the markers are listed again because a listed generation had gone and a newer one may have come."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """One generation of a blob. ``size``: bytes."""

    generation: str
    size: int


class Blobs:
    """Where blobs are, for repositories that may read them."""

    def __init__(self, store: ObjectStore, links: Links) -> None:
        self._store = store
        self._links = links
        # A hint only: places never change, whether they still hold is asked of the store at every use (rule S3).
        self._places: OrderedDict[Digest, StoredBlob] = OrderedDict()

    async def resolve(self, repository: RepositoryName, digest: Digest) -> Descriptor:
        """The descriptor of a blob for a reader.

        Raises:
            BlobUnknown: the repository has no such blob.
        """
        if not await self._links.exist(repository, digest):
            raise _unknown(digest)
        return _describe(digest, await self._first(digest, self._is_stored))

    async def locate(
        self, repository: RepositoryName, digest: Digest, ttl: int, headers: Mapping[str, str]
    ) -> BlobLocation | None:
        """Where a reader can fetch the blob from the store itself; see ``Reader.locate_blob``.

        Raises:
            BlobUnknown: the repository has no such blob.
        """
        # Side by side: only stores with an address come here, and asking them takes a round trip each.
        may_read, blob = await asyncio.gather(
            self._links.exist(repository, digest), self._first(digest, self._is_stored)
        )
        if not may_read:
            raise _unknown(digest)
        url = await self._store.presign(layout.data(blob.generation), ttl, headers=headers)
        return None if url is None else BlobLocation(_describe(digest, blob), url)

    async def resolve_for_push(self, repository: RepositoryName, digest: Digest) -> Descriptor:
        """The descriptor of a blob that the caller may rely on for ``GRACE`` seconds.

        Raises:
            BlobUnknown: the repository has no such blob, or only condemned copies; push it again.
        """
        if not await self._links.renew(repository, digest):
            raise _unknown(digest)
        return _describe(digest, await self.usable(digest))

    async def mount(self, repository: RepositoryName, digest: Digest, source: RepositoryName | None) -> Descriptor:
        """Links a stored blob into a repository.

        Raises:
            BlobUnknown: ``source`` has no such blob, or, without a source, no repository.
        """
        if source == repository:
            return await self.resolve_for_push(repository, digest)
        if source is not None and not await self._links.exist(source, digest):
            raise _unknown(digest)
        await self.usable(digest)
        await self._links.add(repository, digest)
        return _describe(digest, await self.usable(digest))

    async def add(self, repository: RepositoryName, digest: Digest, blob: StoredBlob) -> Descriptor:
        """Records bytes that were just stored and verified, and links them into the repository.

        Raises:
            BlobUnknown: this took so long that the bytes were taken for garbage.
        """
        places = (layout.blob_marker(digest, blob.generation, blob.size), layout.upload_link(repository, digest))
        await side_by_side(self._store, places, lambda place: self._store.put(place, b""))
        if not await self._is_usable(blob):
            raise _unknown(digest)
        self._remember(digest, blob)
        return _describe(digest, blob)

    async def usable(self, digest: Digest) -> StoredBlob:
        """A generation that a reference may rely on; call it after the reference was written.

        Raises:
            BlobUnknown: there is none that is stored and not condemned.
        """
        return await self._first(digest, self._is_usable)

    async def is_doomed(self, generation: str) -> bool:
        """Whether the collector has condemned this generation."""
        try:
            await self._store.stat(layout.doom(generation))
        except KeyNotFound:
            return False
        return True

    def read(
        self, repository: RepositoryName, digest: Digest, *, start: int, stop: int | None
    ) -> AbstractAsyncContextManager[OpenBlob]:
        """Opens a blob's bytes; see ``Reader.read_blob``."""
        return OpenBlob(self, self._links, self._store, repository, digest, start, stop)

    async def _first(self, digest: Digest, fits: Callable[[StoredBlob], Awaitable[bool]]) -> StoredBlob:
        """The newest generation that ``fits``, the remembered one first."""
        hint = self._places.get(digest)
        if hint is not None and await fits(hint):
            return hint
        seen: set[StoredBlob] = set()
        for _ in range(_LISTINGS):
            found = [blob for blob in await self._generations(digest) if blob not in seen]
            for blob in found:
                if await fits(blob):
                    self._remember(digest, blob)
                    return blob
            if not found:
                break
            seen.update(found)
        self._places.pop(digest, None)
        raise _unknown(digest)

    async def _generations(self, digest: Digest) -> list[StoredBlob]:
        """Every marked generation, newest first."""
        found: list[StoredBlob] = []
        async for entry in self._store.list(layout.blob_markers(digest)):
            parsed = layout.parse_marker(entry.key) if isinstance(entry, ObjectInfo) else None
            if parsed is not None:
                found.append(StoredBlob(*parsed))
        found.reverse()
        return found

    async def _is_stored(self, blob: StoredBlob) -> bool:
        try:
            info = await self._store.stat(layout.data(blob.generation))
        except KeyNotFound:
            return False
        return info.size == blob.size

    async def _is_usable(self, blob: StoredBlob) -> bool:
        return not await self.is_doomed(blob.generation) and await self._is_stored(blob)

    def _remember(self, digest: Digest, blob: StoredBlob) -> None:
        self._places[digest] = blob
        if len(self._places) > _PLACES:
            self._places.popitem(last=False)


class OpenBlob:
    """A blob, or a range of one, being read: the ``BlobStream`` of a stored blob."""

    __slots__ = (
        "_blobs",
        "_chunks",
        "_digest",
        "_file",
        "_links",
        "_opening",
        "_repository",
        "_start",
        "_stop",
        "_store",
        "descriptor",
    )

    descriptor: Descriptor

    def __init__(
        self,
        blobs: Blobs,
        links: Links,
        store: ObjectStore,
        repository: RepositoryName,
        digest: Digest,
        start: int,
        stop: int | None,
    ) -> None:
        self._blobs, self._links, self._store = blobs, links, store
        self._repository, self._digest = repository, digest
        self._start, self._stop = start, stop
        self._opening: AbstractAsyncContextManager[Reading] | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._file: FileSpan | None = None

    async def __aenter__(self) -> Self:
        with refusals:
            if not await self._links.exist(self._repository, self._digest):
                raise _unknown(self._digest)
            self.descriptor = _describe(self._digest, await self._blobs._first(self._digest, self._open))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opening is not None:
            with refusals:
                await self._opening.__aexit__(kind, error, trace)

    def file(self) -> FileSpan | None:
        """The bytes as a part of an open file; see ``InFile.file``."""
        return self._file

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._chunks is None:
            raise RuntimeError("a blob is read inside its `async with` block")
        with refusals:
            return await self._chunks.__anext__()

    async def _open(self, blob: StoredBlob) -> bool:
        opening = self._store.read(layout.data(blob.generation), start=self._start, stop=self._stop)
        try:
            reading = await opening.__aenter__()
        except KeyNotFound:
            return False
        self._opening, self._chunks, self._file = opening, reading.__aiter__(), reading.file()
        return True


def _describe(digest: Digest, blob: StoredBlob) -> Descriptor:
    return Descriptor(OCTET_STREAM, digest, blob.size)


def _unknown(digest: Digest) -> BlobUnknown:
    return BlobUnknown(detail={"digest": str(digest)})
