"""The port: everything that holds images is a ``Registry``.

``LocalRegistry`` (the server's core), ``RemoteRegistry`` (HTTP) and ``ImageLayout`` (a directory) implement it; the web
layer, the copy engine and every wrapper use it. So a pull is a copy from remote to layout, a proxy is the server over a
remote, and one suite of behaviours runs over all of them.

Law of names: ``resolve_*`` returns a descriptor, ``read_*`` content, ``push_*`` and ``mount_*`` say where it is now.
Law of errors: each method lists what it raises; besides these any method may raise ``Unauthorized``, ``Denied``,
``Unsupported``, ``TooManyRequests``, ``Unavailable`` and, when it writes, ``StorageFull``.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from moorage.registry.oci.descriptor import Descriptor
from moorage.registry.oci.digest import Digest
from moorage.registry.oci.manifest import Manifest
from moorage.registry.oci.names import RepositoryName, Tag, TagOrDigest
from moorage.registry.oci.values import dataclass, field

__all__ = [
    "ANY_VALUE",
    "BlobLocation",
    "BlobStream",
    "Deleter",
    "FileSpan",
    "InFile",
    "Lister",
    "Reader",
    "Registry",
    "TagCondition",
    "UploadStatus",
    "Uploader",
    "Writer",
]


class BlobStream(Protocol):
    """The bytes of a blob, or of a range of it; already open, so the first byte is known to exist.

    Iterate it once. ``descriptor`` describes the whole blob even where only a range is read.
    """

    descriptor: Descriptor

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Bounded chunks, in order. An exception means that the content cannot be completed: abort the transfer."""


class FileSpan(Protocol):
    """Bytes ``start`` up to, not including, ``stop`` of an open file."""

    @property
    def start(self) -> int:
        """Where they begin."""

    @property
    def stop(self) -> int:
        """Where they end."""

    def fileno(self) -> int:
        """The descriptor, open as long as the stream is."""


@runtime_checkable
class InFile(Protocol):
    """A ``BlobStream`` whose bytes may lie in a file here, from where the kernel can send them."""

    def file(self) -> FileSpan | None:
        """The bytes of the stream, to be taken instead of iterating it; None where they lie elsewhere."""


@dataclass(frozen=True, slots=True)
class BlobLocation:
    """Where a blob lies outside. ``url``: its holder may GET the bytes for a while, so it is never written down."""

    descriptor: Descriptor
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """An upload session: its opaque id, the bytes it has taken, and the least size of a chunk (0: any)."""

    id: str
    offset: int
    min_chunk: int = 0


@dataclass(frozen=True, slots=True)
class TagCondition:
    """What a tag must be for a write to happen (HTTP If-Match and If-None-Match).

    ``absent``: the tag must not exist. ``digest``: it must name this manifest. Neither: whatever it is.
    """

    absent: bool = False
    digest: Digest | None = None


ANY_VALUE = TagCondition()


class Reader(Protocol):
    """Finds and reads content."""

    async def resolve_blob(self, repository: RepositoryName, digest: Digest, *, for_push: bool = False) -> Descriptor:
        """The blob's descriptor, of media type ``application/octet-stream``.

        Args:
            for_push: the caller may rely on the answer for a push; the blob is then kept for 24 h (promise M6).

        Raises:
            BlobUnknown: the repository has no such blob.
        """

    def read_blob(
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AbstractAsyncContextManager[BlobStream]:
        """Opens the blob's bytes from ``start`` up to, not including, ``stop`` (None: the end).

        Raises:
            BlobUnknown: the repository has no such blob.
        """

    async def locate_blob(
        self, repository: RepositoryName, digest: Digest, *, ttl: int, headers: Mapping[str, str]
    ) -> BlobLocation | None:
        """Where the caller's client can fetch the blob's bytes itself, whole or one range of them.

        None: nowhere, read them here; that costs no look-up, so it does not tell whether the blob exists.

        Args:
            ttl: seconds for which the URL lets its holder in.
            headers: with which the bytes come, whatever the client asks for: of ``content-type``,
                ``content-disposition`` and ``cache-control``.

        Raises:
            BlobUnknown: the repository has no such blob.
        """

    async def resolve_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Descriptor:
        """The manifest's descriptor.

        Raises:
            ManifestUnknown: the repository has no such manifest or tag.
        """

    async def read_manifest(self, repository: RepositoryName, reference: TagOrDigest) -> Manifest:
        """The manifest; its bytes have been checked against its digest.

        Raises:
            ManifestUnknown: the repository has no such manifest or tag.
        """


class Writer(Protocol):
    """Puts whole things."""

    async def push_blob(
        self, repository: RepositoryName, descriptor: Descriptor, content: AsyncIterable[bytes]
    ) -> Descriptor:
        """Stores a blob. Idempotent: returning means the blob is stored durably, not that this call stored it.

        Raises:
            DigestInvalid: the content has another digest.
            SizeInvalid: the content has another size.
        """

    async def mount_blob(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName | None = None
    ) -> Descriptor:
        """Makes a blob of another repository readable in this one, without moving bytes.

        Args:
            source: the repository that has it; None asks for any that the caller may read.

        Raises:
            BlobUnknown: the source has no such blob, or none was found.
        """

    async def push_manifest(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        *,
        tags: Sequence[Tag] = (),
        condition: TagCondition = ANY_VALUE,
    ) -> Descriptor:
        """Stores a manifest and makes every tag in ``tags`` name it. Durable and visible everywhere on return.

        Raises:
            ManifestInvalid: the document breaks a rule.
            DigestInvalid: the content does not have the digest it was given under.
            ManifestBlobUnknown: it references content that the repository does not have.
            PreconditionFailed: a tag is not what ``condition`` asks for; it was not changed, nor those behind it.
        """


class Uploader(Protocol):
    """Takes a blob in pieces. Any worker or replica may go on with any session."""

    async def start_upload(self, repository: RepositoryName, *, algorithm: str | None = None) -> UploadStatus:
        """Opens a session.

        Args:
            algorithm: the digest algorithm that the closing request will use, where the client said so.

        Raises:
            DigestInvalid: the algorithm is not supported.
        """

    async def upload_status(self, repository: RepositoryName, upload: str) -> UploadStatus:
        """How far the session is.

        Raises:
            BlobUploadUnknown: no such session in this repository.
        """

    async def append_upload(
        self, repository: RepositoryName, upload: str, content: AsyncIterable[bytes], *, start: int | None = None
    ) -> UploadStatus:
        """Adds bytes. If ``content`` raises, what arrived is kept and the session goes on from there.

        Args:
            start: where the client believes the session is; None does not check.

        Raises:
            BlobUploadUnknown: no such session in this repository.
            RangeInvalid: ``start`` is not where the session stopped, or another append is running; nothing changed.
        """

    async def finish_upload(self, repository: RepositoryName, upload: str, digest: Digest) -> Descriptor:
        """Closes the session: its bytes become the blob ``digest``, durably.

        Raises:
            BlobUploadUnknown: no such session in this repository.
            DigestInvalid: the bytes have another digest; the session is gone.
        """

    async def cancel_upload(self, repository: RepositoryName, upload: str) -> None:
        """Drops the session and its bytes.

        Raises:
            BlobUploadUnknown: no such session in this repository.
        """


class Deleter(Protocol):
    """Removes names; the bytes behind them are collected later."""

    async def delete_blob(self, repository: RepositoryName, digest: Digest) -> None:
        """Removes the blob from the repository.

        Raises:
            BlobUnknown: the repository has no such blob.
            BlobReferenced: a manifest of the repository needs it.
        """

    async def delete_manifest(self, repository: RepositoryName, digest: Digest) -> None:
        """Removes the manifest and every tag that names it.

        Raises:
            ManifestUnknown: the repository has no such manifest.
        """

    async def delete_tag(self, repository: RepositoryName, tag: Tag) -> None:
        """Removes the tag; the manifest stays.

        Raises:
            ManifestUnknown: the repository has no such tag.
        """


class Lister(Protocol):
    """Lists names, complete and in a stable order (promise M8). Iteration is lazy."""

    def list_repositories(self, *, after: RepositoryName | None = None) -> AsyncIterator[RepositoryName]:
        """Every repository that has a manifest, from behind ``after``."""

    def list_tags(self, repository: RepositoryName, *, after: str = "") -> AsyncIterator[Tag]:
        """Every tag in byte order, from behind ``after`` (which need not exist).

        Raises:
            NameUnknown: the registry has no such repository (raised by the first step).
        """

    def list_referrers(
        self, repository: RepositoryName, subject: Digest, *, artifact_type: str | None = None, after: str = ""
    ) -> AsyncIterator[Descriptor]:
        """The manifests whose subject is ``subject``, by digest, from behind the digest ``after``.

        Nothing for a repository or subject that does not exist: never an error.
        """


class Registry(Reader, Writer, Uploader, Deleter, Lister, Protocol):
    """All roles together."""
