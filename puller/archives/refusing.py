"""What no archive can do.

Rule: an archive is a registry that denies; each kind of archive spells out what it can do after all.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

from moorage.registry.oci import (
    ANY_VALUE,
    BlobLocation,
    BlobStream,
    BlobUnknown,
    Descriptor,
    Digest,
    Manifest,
    ManifestUnknown,
    RepositoryName,
    Tag,
    TagCondition,
    TagOrDigest,
    Unsupported,
    UploadStatus,
)

__all__ = ["Nothing", "Refusing"]


class Refusing:
    """A registry that does nothing. ``name``: of the archive, for messages."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _refuse(self) -> NoReturn:
        raise Unsupported(f"{self.name}: an archive cannot do this")

    async def resolve_blob(self, repository: RepositoryName, digest: Digest, *, for_push: bool = False) -> Descriptor:
        """See ``Reader``."""
        self._refuse()

    def read_blob(
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[BlobStream]:
        """See ``Reader``."""
        self._refuse()

    async def locate_blob(
        self, repository: RepositoryName, digest: Digest, *, ttl: int, headers: Mapping[str, str]
    ) -> BlobLocation | None:
        """See ``Reader``. None: an archive has no address."""
        return None

    async def resolve_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Descriptor:
        """See ``Reader``."""
        self._refuse()

    async def read_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Manifest:
        """See ``Reader``."""
        self._refuse()

    async def push_blob(
        self, repository: RepositoryName, descriptor: Descriptor, content: AsyncIterable[bytes]
    ) -> Descriptor:
        """See ``Writer``."""
        self._refuse()

    async def mount_blob(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName | None = None
    ) -> Descriptor:
        """See ``Writer``."""
        self._refuse()

    async def push_manifest(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        *,
        tags: Sequence[Tag] = (),
        condition: TagCondition = ANY_VALUE,
    ) -> Descriptor:
        """See ``Writer``."""
        self._refuse()

    async def start_upload(self, repository: RepositoryName, *, algorithm: str | None = None) -> UploadStatus:
        """See ``Uploader``."""
        self._refuse()

    async def upload_status(self, repository: RepositoryName, upload: str) -> UploadStatus:
        """See ``Uploader``."""
        self._refuse()

    async def append_upload(
        self, repository: RepositoryName, upload: str, content: AsyncIterable[bytes], *, start: int | None = None
    ) -> UploadStatus:
        """See ``Uploader``."""
        self._refuse()

    async def finish_upload(self, repository: RepositoryName, upload: str, digest: Digest) -> Descriptor:
        """See ``Uploader``."""
        self._refuse()

    async def cancel_upload(self, repository: RepositoryName, upload: str) -> None:
        """See ``Uploader``."""
        self._refuse()

    async def delete_blob(self, repository: RepositoryName, digest: Digest) -> None:
        """See ``Deleter``."""
        self._refuse()

    async def delete_manifest(self, repository: RepositoryName, digest: Digest) -> None:
        """See ``Deleter``."""
        self._refuse()

    async def delete_tag(self, repository: RepositoryName, tag: Tag) -> None:
        """See ``Deleter``."""
        self._refuse()

    def list_repositories(self, *, after: RepositoryName | None = None) -> AsyncIterator[RepositoryName]:
        """See ``Lister``."""
        self._refuse()

    def list_tags(self, repository: RepositoryName, *, after: str = "") -> AsyncIterator[Tag]:
        """See ``Lister``."""
        self._refuse()

    def list_referrers(
        self, repository: RepositoryName, subject: Digest, *, artifact_type: str | None = None, after: str = ""
    ) -> AsyncIterator[Descriptor]:
        """See ``Lister``."""
        self._refuse()


class Nothing(Refusing):
    """A place that is not there yet, for plans: it holds nothing."""

    async def resolve_blob(self, repository: RepositoryName, digest: Digest, *, for_push: bool = False) -> Descriptor:
        """See ``Reader``."""
        raise BlobUnknown

    async def resolve_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Descriptor:
        """See ``Reader``."""
        raise ManifestUnknown
