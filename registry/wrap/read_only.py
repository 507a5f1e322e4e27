"""Registries with verbs switched off: nothing may be written, or nothing may be deleted.

Law: a wrapper spells out every method of the protocol, so a method added later does not exist here until somebody
decides what it means (style sheet 20).
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from moorage.registry.oci import (
    ANY_VALUE,
    BlobLocation,
    BlobStream,
    Descriptor,
    Digest,
    Manifest,
    Registry,
    RepositoryName,
    Tag,
    TagCondition,
    TagOrDigest,
    Unsupported,
    UploadStatus,
)

__all__ = ["NoDelete", "ReadOnly"]


class _Readable:
    """What reads and lists, passed on."""

    def __init__(self, inner: Registry) -> None:
        self._inner = inner

    def read_blob(
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[BlobStream]:
        """See ``Reader.read_blob``."""
        return self._inner.read_blob(repository, digest, start=start, stop=stop)

    async def locate_blob(
        self, repository: RepositoryName, digest: Digest, *, ttl: int, headers: Mapping[str, str]
    ) -> BlobLocation | None:
        """See ``Reader.locate_blob``."""
        return await self._inner.locate_blob(repository, digest, ttl=ttl, headers=headers)

    async def resolve_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Descriptor:
        """See ``Reader.resolve_manifest``."""
        return await self._inner.resolve_manifest(repository, reference)

    async def read_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Manifest:
        """See ``Reader.read_manifest``."""
        return await self._inner.read_manifest(repository, reference)

    def list_repositories(self, *, after: RepositoryName | None = None) -> AsyncIterator[RepositoryName]:
        """See ``Lister.list_repositories``."""
        return self._inner.list_repositories(after=after)

    def list_tags(self, repository: RepositoryName, *, after: str = "") -> AsyncIterator[Tag]:
        """See ``Lister.list_tags``."""
        return self._inner.list_tags(repository, after=after)

    def list_referrers(
        self, repository: RepositoryName, subject: Digest, *, artifact_type: str | None = None, after: str = ""
    ) -> AsyncIterator[Descriptor]:
        """See ``Lister.list_referrers``."""
        return self._inner.list_referrers(repository, subject, artifact_type=artifact_type, after=after)


class ReadOnly(_Readable):
    """``inner`` without anything that writes: every such call raises ``Unsupported``."""

    async def resolve_blob(self, repository: RepositoryName, digest: Digest, *, for_push: bool = False) -> Descriptor:
        """See ``Reader.resolve_blob``; as nobody can push, nothing is kept for a push, which would be a write."""
        return await self._inner.resolve_blob(repository, digest)

    async def push_blob(
        self, repository: RepositoryName, descriptor: Descriptor, content: AsyncIterable[bytes]
    ) -> Descriptor:
        """Refused."""
        raise _is_read_only()

    async def mount_blob(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName | None = None
    ) -> Descriptor:
        """Refused."""
        raise _is_read_only()

    async def push_manifest(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        *,
        tags: Sequence[Tag] = (),
        condition: TagCondition = ANY_VALUE,
    ) -> Descriptor:
        """Refused."""
        raise _is_read_only()

    async def start_upload(self, repository: RepositoryName, *, algorithm: str | None = None) -> UploadStatus:
        """Refused."""
        raise _is_read_only()

    async def upload_status(self, repository: RepositoryName, upload: str) -> UploadStatus:
        """Refused: a session that cannot go on is not shown as if it could."""
        raise _is_read_only()

    async def append_upload(
        self, repository: RepositoryName, upload: str, content: AsyncIterable[bytes], *, start: int | None = None
    ) -> UploadStatus:
        """Refused."""
        raise _is_read_only()

    async def finish_upload(self, repository: RepositoryName, upload: str, digest: Digest) -> Descriptor:
        """Refused."""
        raise _is_read_only()

    async def cancel_upload(self, repository: RepositoryName, upload: str) -> None:
        """Refused."""
        raise _is_read_only()

    async def delete_blob(self, repository: RepositoryName, digest: Digest) -> None:
        """Refused."""
        raise _is_read_only()

    async def delete_manifest(self, repository: RepositoryName, digest: Digest) -> None:
        """Refused."""
        raise _is_read_only()

    async def delete_tag(self, repository: RepositoryName, tag: Tag) -> None:
        """Refused."""
        raise _is_read_only()


class NoDelete(_Readable):
    """``inner`` without the deletion of blobs, manifests and tags, which raises ``Unsupported``.

    Cancelling an upload stays: it takes nothing away that was ever there to read.
    """

    async def resolve_blob(self, repository: RepositoryName, digest: Digest, *, for_push: bool = False) -> Descriptor:
        """See ``Reader.resolve_blob``."""
        return await self._inner.resolve_blob(repository, digest, for_push=for_push)

    async def push_blob(
        self, repository: RepositoryName, descriptor: Descriptor, content: AsyncIterable[bytes]
    ) -> Descriptor:
        """See ``Writer.push_blob``."""
        return await self._inner.push_blob(repository, descriptor, content)

    async def mount_blob(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName | None = None
    ) -> Descriptor:
        """See ``Writer.mount_blob``."""
        return await self._inner.mount_blob(repository, digest, source=source)

    async def push_manifest(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        *,
        tags: Sequence[Tag] = (),
        condition: TagCondition = ANY_VALUE,
    ) -> Descriptor:
        """See ``Writer.push_manifest``."""
        return await self._inner.push_manifest(repository, manifest, tags=tags, condition=condition)

    async def start_upload(self, repository: RepositoryName, *, algorithm: str | None = None) -> UploadStatus:
        """See ``Uploader.start_upload``."""
        return await self._inner.start_upload(repository, algorithm=algorithm)

    async def upload_status(self, repository: RepositoryName, upload: str) -> UploadStatus:
        """See ``Uploader.upload_status``."""
        return await self._inner.upload_status(repository, upload)

    async def append_upload(
        self, repository: RepositoryName, upload: str, content: AsyncIterable[bytes], *, start: int | None = None
    ) -> UploadStatus:
        """See ``Uploader.append_upload``."""
        return await self._inner.append_upload(repository, upload, content, start=start)

    async def finish_upload(self, repository: RepositoryName, upload: str, digest: Digest) -> Descriptor:
        """See ``Uploader.finish_upload``."""
        return await self._inner.finish_upload(repository, upload, digest)

    async def cancel_upload(self, repository: RepositoryName, upload: str) -> None:
        """See ``Uploader.cancel_upload``."""
        await self._inner.cancel_upload(repository, upload)

    async def delete_blob(self, repository: RepositoryName, digest: Digest) -> None:
        """Refused."""
        raise _deletes_nothing()

    async def delete_manifest(self, repository: RepositoryName, digest: Digest) -> None:
        """Refused."""
        raise _deletes_nothing()

    async def delete_tag(self, repository: RepositoryName, tag: Tag) -> None:
        """Refused."""
        raise _deletes_nothing()


def _is_read_only() -> Unsupported:
    return Unsupported("this registry is read-only (--read-only)")


def _deletes_nothing() -> Unsupported:
    return Unsupported("this registry does not delete (--no-delete)")
