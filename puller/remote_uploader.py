"""The ``Uploader`` role of a registry over HTTP: sessions that somebody else keeps, as a server stacked over it does.

Law of sessions: the id of an upload is the tail of the Location that the registry gave, in base64url, so it can stand
in a URL of ours and cannot lead anywhere but to uploads of its repository.
"""

from __future__ import annotations

from collections.abc import AsyncIterable

from moorage.puller.answers import length_of
from moorage.puller.sessions import Interruptible, location_of_session, status_of, with_digest
from moorage.puller.wire import Wire
from moorage.registry.oci import Descriptor, Digest, RangeInvalid, RepositoryName, UploadStatus, routes
from moorage.registry.oci.media_types import OCTET_STREAM

__all__ = ["RemoteUploader"]

_PIECE = 16 * 1024 * 1024
"""Bytes of one chunk where a chunk must say how long it is: more than any registry's least chunk that we know of."""

_BINARY = {"Content-Type": OCTET_STREAM}


class RemoteUploader:
    """Uploads in pieces to the registry at the end of ``wire``."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def start_upload(self, repository: RepositoryName, *, algorithm: str | None = None) -> UploadStatus:
        """See ``Uploader``."""
        async with self._wire.call(routes.StartUpload(repository, algorithm=algorithm), idempotent=False) as answer:
            status = status_of(repository, answer)
        return UploadStatus(status.id, 0, status.min_chunk)

    async def upload_status(self, repository: RepositoryName, upload: str) -> UploadStatus:
        """See ``Uploader``."""
        at = location_of_session(self._wire.origin, repository, upload)
        async with self._wire.call(routes.GetUpload(repository, "-"), at=at) as answer:
            return status_of(repository, answer, asked=upload)

    async def append_upload(
        self, repository: RepositoryName, upload: str, content: AsyncIterable[bytes], *, start: int | None = None
    ) -> UploadStatus:
        """See ``Uploader``. With ``start`` the bytes go in chunks that each say where they belong."""
        source = Interruptible(content)
        if start is None:
            status = await self._append(repository, upload, source, {})
        else:
            status = await self._append_pieces(repository, upload, source, start)
        source.raise_failure()
        return status

    async def _append_pieces(
        self, repository: RepositoryName, upload: str, source: Interruptible, start: int
    ) -> UploadStatus:
        status = UploadStatus(upload, start)
        async for piece in source.pieces(_PIECE):
            headers = {"Content-Range": f"{start}-{start + len(piece) - 1}"}
            status = await self._append(repository, status.id, piece, headers)
            start += len(piece)
            status = UploadStatus(status.id, start, status.min_chunk)
        if source.size == 0:
            status = await self.upload_status(repository, upload)
            if status.offset != start:
                raise RangeInvalid(detail={"offset": status.offset})
        return status

    async def _append(
        self, repository: RepositoryName, upload: str, body: bytes | Interruptible, headers: dict[str, str]
    ) -> UploadStatus:
        at = location_of_session(self._wire.origin, repository, upload)
        endpoint = routes.AppendUpload(repository, "-")
        async with self._wire.call(
            endpoint, at=at, headers={**_BINARY, **headers}, body=body, idempotent=False
        ) as answer:
            return status_of(repository, answer, asked=upload)

    async def finish_upload(self, repository: RepositoryName, upload: str, digest: Digest) -> Descriptor:
        """See ``Uploader``."""
        at = with_digest(location_of_session(self._wire.origin, repository, upload), digest)
        async with self._wire.call(routes.FinishUpload(repository, "-", digest), at=at, body=b"", idempotent=False):
            pass
        async with self._wire.call(routes.HeadBlob(repository, digest)) as answer:
            return Descriptor(OCTET_STREAM, digest, length_of(answer))

    async def cancel_upload(self, repository: RepositoryName, upload: str) -> None:
        """See ``Uploader``."""
        at = location_of_session(self._wire.origin, repository, upload)
        async with self._wire.call(routes.CancelUpload(repository, "-"), at=at, idempotent=False):
            pass
