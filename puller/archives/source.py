"""An archive as a registry to copy from: one repository, whose tags are the names that are tags.

Law: what is read is verified; nothing of the archive is believed but what its digest proves.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from moorage.puller.archives.contained import Contained, read_contained
from moorage.puller.archives.members import Members
from moorage.puller.archives.names import same_name
from moorage.puller.archives.refusing import Refusing
from moorage.puller.errors import ImageError
from moorage.puller.file_body import FileSpan
from moorage.registry.oci import (
    MANIFEST_LIMIT,
    BlobStream,
    BlobUnknown,
    Descriptor,
    Digest,
    Manifest,
    ManifestInvalid,
    ManifestUnknown,
    RepositoryName,
    Tag,
    TagInvalid,
    TagOrDigest,
    verified,
)
from moorage.registry.oci.media_types import IMAGE_TYPES, INDEX_TYPES, OCTET_STREAM

__all__ = ["ArchiveSource"]

_CHUNK = 1024 * 1024
_ATTACHED = re.compile(r"(sha256|sha512)-[0-9a-f]{64,128}(\.[a-z]+)?")


class ArchiveSource(Refusing):
    """The images of an archive. Make one with ``open``."""

    def __init__(self, members: Members, contained: Contained) -> None:
        super().__init__(members.path)
        self._members, self._contained = members, contained

    @classmethod
    def open(cls, path: str) -> ArchiveSource:
        """Reads the archive's lists; blocks.

        Raises:
            ImageError: it is no archive of images, damaged, or beyond a limit.
            OSError: it cannot be read.
        """
        members = Members(path)
        try:
            return cls(members, read_contained(members))
        except BaseException:
            members.close()
            raise

    @property
    def is_converted(self) -> bool:
        """Whether the archive has no manifests, so that they were made here."""
        return bool(self._contained.made)

    def close(self) -> None:
        """Closes the archive."""
        self._members.close()

    def choose(self, name: str) -> Descriptor:
        """The image called ``name``, or the only one if ``name`` is empty.

        Raises:
            ImageError: there is none, or there are several.
        """
        images = self._contained.images
        if name:
            found = {image.digest: image for image, names in images if any(same_name(n, name) for n in names)}
        else:
            found = {image.digest: image for image, names in images if not self._is_attached(image, names)}
        if len(found) == 1:
            return next(iter(found.values()))
        held = ", ".join(sorted({n for _, names in images for n in names})) or "images without names"
        raise ImageError(f"{self.name}: {f'no image {name}' if name else 'say which image'} (it holds {held})")

    async def blob_span(self, digest: Digest) -> FileSpan:
        """See ``contents.InFiles``."""
        return self._span(digest)

    async def resolve_blob(self, repository: RepositoryName, digest: Digest, *, for_push: bool = False) -> Descriptor:
        """See ``Reader``."""
        span = self._span(digest)
        return Descriptor(OCTET_STREAM, digest, span.stop - span.start)

    @asynccontextmanager
    async def read_blob(
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[BlobStream]:
        """See ``Reader``. Read whole, the bytes are checked against the digest."""
        blob = await self.resolve_blob(repository, digest)
        end = blob.size if stop is None else min(stop, blob.size)
        content = _read_chunks(self._span(digest).cut(start, end))
        yield _ArchivedBlob(blob, content if start or end < blob.size else verified(content, blob))

    async def resolve_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Descriptor:
        """See ``Reader``."""
        return (await self.read_manifest(repository, reference)).descriptor

    async def read_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Manifest:
        """See ``Reader``."""
        if isinstance(reference, Tag):
            reference = self._tagged(reference).digest
        if (made := self._contained.made.get(reference)) is not None:
            return made
        return await asyncio.to_thread(self._load, reference)

    async def list_tags(self, repository: RepositoryName, *, after: str = "") -> AsyncIterator[Tag]:
        """See ``Lister``."""
        for name in sorted({name for _, names in self._contained.images for name in names}):
            with suppress(TagInvalid):
                if name > after:
                    yield Tag.parse(name)

    async def list_referrers(
        self, repository: RepositoryName, subject: Digest, *, artifact_type: str | None = None, after: str = ""
    ) -> AsyncIterator[Descriptor]:
        """See ``Lister``. Referrers of an image are entries of the index beside it."""
        for image, _ in self._contained.images:
            if image.media_type not in IMAGE_TYPES | INDEX_TYPES or image.digest in self._contained.made:
                continue
            manifest = await self.read_manifest(repository, image.digest)
            about = manifest.document.subject
            referrer = manifest.as_referrer()
            is_wanted = artifact_type in (None, referrer.artifact_type) and str(referrer.digest) > after
            if about is not None and about.digest == subject and is_wanted:
                yield referrer

    def _is_attached(self, image: Descriptor, names: frozenset[str]) -> bool:
        """Whether it is there for the sake of another: a referrer, or what cosign tags."""
        if any(_ATTACHED.fullmatch(name) for name in names):
            return True
        if image.media_type not in IMAGE_TYPES | INDEX_TYPES or image.digest in self._contained.made:
            return False
        return self._load(image.digest).document.subject is not None

    def _tagged(self, tag: Tag) -> Descriptor:
        for image, names in self._contained.images:
            if str(tag) in names:
                return image
        raise ManifestUnknown(f"{self.name} holds no image {tag}")

    def _load(self, digest: Digest) -> Manifest:
        try:
            content = self._members.read(f"blobs/{digest.algorithm}/{digest.hex}", limit=MANIFEST_LIMIT)
        except ImageError as exc:
            raise ManifestUnknown(str(exc)) from exc
        if Digest.of(content, digest.algorithm) != digest:
            raise ImageError(f"{self.name}: the manifest {digest} is damaged")
        types = {image.digest: image.media_type for image, _ in self._contained.images}
        try:
            return Manifest.of(content, types.get(digest), digest=digest)
        except ManifestInvalid as exc:
            raise ImageError(f"{self.name}: the manifest {digest}: {exc.message}") from exc

    def _span(self, digest: Digest) -> FileSpan:
        if (span := self._contained.spans.get(digest)) is not None:
            return span
        try:
            return self._members.span(f"blobs/{digest.algorithm}/{digest.hex}")
        except ImageError as exc:
            raise BlobUnknown(str(exc)) from exc


class _ArchivedBlob:
    """A blob of an archive, or a range of one, being read."""

    def __init__(self, descriptor: Descriptor, content: AsyncIterator[bytes]) -> None:
        self.descriptor = descriptor
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._content


async def _read_chunks(span: FileSpan) -> AsyncIterator[bytes]:
    with open(span.path, "rb", buffering=0) as file:  # noqa: ASYNC230 (a name of the kernel's, nothing is read)
        for position in range(span.start, span.stop, _CHUNK):
            yield await asyncio.to_thread(os.pread, file.fileno(), min(_CHUNK, span.stop - position), position)
