"""ImageLayout: the ``Registry`` protocol over an OCI image layout on disk.

A layout is one pool of blobs and a list of names, where a registry is many repositories. A view says how the two meet:

* ``of_registry(files, "host:5000")``: a name in the layout is a full reference, ``host:5000/team/app:1.0``. The view
  shows the repositories of that one host. This is how the store keeps what was pulled.
* ``of_tags(files, repository)``: a name is a bare tag, and the layout is one repository, as skopeo, umoci and podman
  write it.

Manifests belong to repositories as ``layout_catalog`` says. Blobs belong to nobody: every repository of a layout reads
all of them, and a mount moves nothing. Failures of the disk are ``OSError``. A change that has begun in a thread is
done when its caller is cancelled, so nothing changes behind anybody's back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import BinaryIO

from moorage.puller.errors import LayoutInvalid
from moorage.puller.layout_catalog import Catalog
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.layout_names import BareTags, FullReferences, RefNames
from moorage.puller.layout_uploads import LayoutUploads
from moorage.puller.threads import to_the_end
from moorage.registry.oci import (
    ANY_VALUE,
    BlobLocation,
    BlobStream,
    Descriptor,
    Digest,
    Manifest,
    RepositoryName,
    Tag,
    TagCondition,
    TagOrDigest,
    UploadStatus,
    verified,
)
from moorage.registry.oci.media_types import OCTET_STREAM

__all__ = ["ImageLayout"]

_CHUNK = 1024 * 1024


class ImageLayout:
    """A view of a layout as a registry. Make one with ``of_registry`` or ``of_tags``."""

    def __init__(self, files: LayoutFiles, names: RefNames) -> None:
        self.files = files
        self._names = names
        self.catalog = Catalog(files, names)
        self._uploads = LayoutUploads(files, repr(names))

    def __repr__(self) -> str:
        return f"<ImageLayout {self.files.root!r} {self._names}>"

    @classmethod
    def of_registry(cls, files: LayoutFiles, registry: str) -> ImageLayout:
        """The images whose names are full references to ``registry`` (``host`` or ``host:port``)."""
        return cls(files, FullReferences(registry))

    @classmethod
    def of_tags(cls, files: LayoutFiles, repository: RepositoryName) -> ImageLayout:
        """The images whose names are bare tags, as the one repository ``repository``."""
        return cls(files, BareTags(repository))

    async def resolve_blob(self, repository: RepositoryName, digest: Digest, *, for_push: bool = False) -> Descriptor:
        """See ``Reader``."""
        return Descriptor(OCTET_STREAM, digest, await asyncio.to_thread(self.files.stat_blob, digest))

    @asynccontextmanager
    async def read_blob(
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[BlobStream]:
        """See ``Reader``. Read whole, the bytes are checked against the digest."""
        with await asyncio.to_thread(self.files.open_blob, digest) as file:
            blob = Descriptor(OCTET_STREAM, digest, await asyncio.to_thread(self.files.stat_blob, digest))
            end = blob.size if stop is None else min(stop, blob.size)
            content = _read_chunks(file, start, end)
            yield LayoutBlob(blob, content if start or end < blob.size else verified(content, blob))

    async def locate_blob(
        self, repository: RepositoryName, digest: Digest, *, ttl: int, headers: Mapping[str, str]
    ) -> BlobLocation | None:
        """See ``Reader``. None: a directory has no address."""
        return None

    async def resolve_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Descriptor:
        """See ``Reader``."""
        return await asyncio.to_thread(self.catalog.resolve, repository, reference)

    async def read_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Manifest:
        """See ``Reader``."""
        descriptor = await asyncio.to_thread(self.catalog.resolve, repository, reference)
        return await asyncio.to_thread(self.catalog.load, descriptor)

    async def push_blob(
        self, repository: RepositoryName, descriptor: Descriptor, content: AsyncIterable[bytes]
    ) -> Descriptor:
        """See ``Writer``."""
        with self.files.stage_blob() as staged:
            async for piece in _gather(verified(content, descriptor)):
                await to_the_end(partial(staged.write, piece))
            await to_the_end(partial(staged.commit, descriptor.digest))
        return Descriptor(OCTET_STREAM, descriptor.digest, descriptor.size)

    async def mount_blob(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName | None = None
    ) -> Descriptor:
        """See ``Writer``. Repositories of a layout share their blobs, so there is nothing to do but look."""
        return await self.resolve_blob(repository, digest)

    async def push_manifest(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        *,
        tags: Sequence[Tag] = (),
        condition: TagCondition = ANY_VALUE,
    ) -> Descriptor:
        """See ``Writer``."""
        return await to_the_end(partial(self.catalog.push, repository, manifest, tuple(tags), condition))

    async def start_upload(self, repository: RepositoryName, *, algorithm: str | None = None) -> UploadStatus:
        """See ``Uploader``."""
        return await asyncio.to_thread(self._uploads.start, repository, algorithm)

    async def upload_status(self, repository: RepositoryName, upload: str) -> UploadStatus:
        """See ``Uploader``."""
        return await asyncio.to_thread(self._uploads.status, repository, upload)

    async def append_upload(
        self, repository: RepositoryName, upload: str, content: AsyncIterable[bytes], *, start: int | None = None
    ) -> UploadStatus:
        """See ``Uploader``."""
        return await self._uploads.append(repository, upload, content, start)

    async def finish_upload(self, repository: RepositoryName, upload: str, digest: Digest) -> Descriptor:
        """See ``Uploader``."""
        return await to_the_end(partial(self._uploads.finish, repository, upload, digest))

    async def cancel_upload(self, repository: RepositoryName, upload: str) -> None:
        """See ``Uploader``."""
        await asyncio.to_thread(self._uploads.cancel, repository, upload)

    async def delete_blob(self, repository: RepositoryName, digest: Digest) -> None:
        """See ``Deleter``. Blobs are shared, so it is refused while any image of the layout needs it."""
        await to_the_end(partial(self.catalog.delete_blob, digest))

    async def delete_manifest(self, repository: RepositoryName, digest: Digest) -> None:
        """See ``Deleter``.

        Raises:
            Unsupported: only an index names the manifest; it goes when the index goes.
        """
        await to_the_end(partial(self.catalog.delete_manifest, repository, digest))

    async def delete_tag(self, repository: RepositoryName, tag: Tag) -> None:
        """See ``Deleter``."""
        await to_the_end(partial(self.catalog.delete_tag, repository, tag))

    async def list_repositories(self, *, after: RepositoryName | None = None) -> AsyncIterator[RepositoryName]:
        """See ``Lister``."""
        for repository in await asyncio.to_thread(self.catalog.repositories):
            if after is None or repository > after:
                yield repository

    async def list_tags(self, repository: RepositoryName, *, after: str = "") -> AsyncIterator[Tag]:
        """See ``Lister``."""
        for tag in await asyncio.to_thread(self.catalog.tags, repository):
            if tag.value > after:
                yield tag

    async def list_referrers(
        self, repository: RepositoryName, subject: Digest, *, artifact_type: str | None = None, after: str = ""
    ) -> AsyncIterator[Descriptor]:
        """See ``Lister``."""
        for referrer in await asyncio.to_thread(self.catalog.referrers, repository, subject):
            if artifact_type in (None, referrer.artifact_type) and str(referrer.digest) > after:
                yield referrer


class LayoutBlob:
    """A blob of a layout, or a range of one, being read."""

    def __init__(self, descriptor: Descriptor, content: AsyncIterator[bytes]) -> None:
        self.descriptor = descriptor
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._content


async def _read_chunks(file: BinaryIO, start: int, stop: int) -> AsyncIterator[bytes]:
    file.seek(start)
    left = stop - start
    while left > 0:
        chunk = await asyncio.to_thread(file.read, min(_CHUNK, left))
        if not chunk:
            raise LayoutInvalid("a blob became shorter while it was read")
        left -= len(chunk)
        yield chunk


async def _gather(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces worth a trip to a thread."""
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        if len(held) >= _CHUNK:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)
