"""Upload sessions of an image layout: a file under ``ingests/`` each, locked while it is written.

Rule: the file's length is the session's offset, so a session survives the program.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from moorage.puller.layout_files import LayoutFiles
from moorage.puller.staging import write_all
from moorage.registry.oci import (
    ALGORITHMS,
    BlobUploadUnknown,
    Descriptor,
    Digest,
    DigestInvalid,
    RangeInvalid,
    RepositoryName,
    UploadStatus,
)
from moorage.registry.oci.media_types import OCTET_STREAM

__all__ = ["LayoutUploads"]

_ID = re.compile(r"[0-9a-f]{32}")


class LayoutUploads:
    """The sessions of one view. ``scope``: keeps sessions of different views apart."""

    def __init__(self, files: LayoutFiles, scope: str) -> None:
        self._files = files
        self._scope = scope

    def start(self, repository: RepositoryName, algorithm: str | None) -> UploadStatus:
        """See ``Uploader.start_upload``."""
        if algorithm is not None and algorithm not in ALGORITHMS:
            raise DigestInvalid(f"unsupported algorithm (supported: {', '.join(ALGORITHMS)})")
        upload = os.urandom(16).hex()
        with open(self._path(repository, upload), "xb"):
            return UploadStatus(upload, 0)

    def status(self, repository: RepositoryName, upload: str) -> UploadStatus:
        """See ``Uploader.upload_status``."""
        try:
            return UploadStatus(upload, os.stat(self._path(repository, upload)).st_size)
        except FileNotFoundError:
            raise BlobUploadUnknown(detail={"upload": upload[:256]}) from None

    async def append(
        self, repository: RepositoryName, upload: str, content: AsyncIterable[bytes], start: int | None
    ) -> UploadStatus:
        """See ``Uploader.append_upload``."""
        with self._locked(repository, upload) as file:
            offset = os.fstat(file.fileno()).st_size
            if start is not None and start != offset:
                raise RangeInvalid(f"the upload stopped at {offset}", detail={"offset": offset})
            async for chunk in content:
                # Not in a thread: a cancelled append must not leave a write behind that outlives the lock.
                write_all(file, chunk)
            return UploadStatus(upload, file.tell())

    def finish(self, repository: RepositoryName, upload: str, digest: Digest) -> Descriptor:
        """See ``Uploader.finish_upload``."""
        path = self._path(repository, upload)
        with self._locked(repository, upload) as file:
            size, hasher = file.seek(0, os.SEEK_END), digest.hasher()
            file.seek(0)
            while chunk := file.read(1024 * 1024):
                hasher.update(chunk)
            if hasher.hexdigest() != digest.hex:
                os.unlink(path)
                raise DigestInvalid("content does not have its digest", detail={"digest": str(digest)})
            os.fsync(file.fileno())
            self._files.publish(path, digest)
        return Descriptor(OCTET_STREAM, digest, size)

    def cancel(self, repository: RepositoryName, upload: str) -> None:
        """See ``Uploader.cancel_upload``."""
        try:
            os.unlink(self._path(repository, upload))
        except FileNotFoundError:
            raise BlobUploadUnknown(detail={"upload": upload[:256]}) from None

    @contextmanager
    def _locked(self, repository: RepositoryName, upload: str) -> Iterator[BinaryIO]:
        path = self._path(repository, upload)
        try:
            file = open(path, "r+b", buffering=0)  # noqa: SIM115 (closed below)
        except FileNotFoundError:
            raise BlobUploadUnknown(detail={"upload": upload[:256]}) from None
        with file:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RangeInvalid("another request is writing to this upload") from None
            if not _is_still_at(path, file):
                raise BlobUploadUnknown(detail={"upload": upload})  # finished by another, its bytes are a blob now
            file.seek(0, os.SEEK_END)
            yield file

    def _path(self, repository: RepositoryName, upload: str) -> str:
        """The session's file; its name binds it to its repository."""
        if _ID.fullmatch(upload) is None:
            raise BlobUploadUnknown(detail={"upload": upload[:256]})
        owner = hashlib.sha256(f"{self._scope}/{repository}".encode()).hexdigest()[:16]
        return self._files.ingest_path(f"upload-{owner}-{upload}")


def _is_still_at(path: str, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
