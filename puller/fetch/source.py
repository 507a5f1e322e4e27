"""Where the bytes of a blob come from."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from moorage.puller.messages import Answer
from moorage.puller.wire import error_of
from moorage.registry.oci import Descriptor, OciError, RepositoryName, routes

__all__ = ["BlobOrigin", "BlobSource"]


class BlobSource(Protocol):
    """What a fetch needs of a registry: ``RemoteRegistry`` has it, and ``Mirrored``."""

    def get_blob(
        self, repository: RepositoryName, blob: Descriptor, *, start: int, stop: int
    ) -> AbstractAsyncContextManager[Answer]:
        """The registry's answer to a GET of these bytes, not judged: 200, 206, 416, 429, 5xx or another status.

        Raises:
            OciError: no answer could be had.
        """

    def distrust(self, blob: Descriptor) -> bool:
        """Takes note that what came of the blob is wrong. True: it may be had from somewhere else, ask again."""

    def is_second_hand(self, blob: Descriptor) -> bool:
        """Whether some of it came from elsewhere than its registry: wrong bytes may yet be replaced by right ones."""


class BlobOrigin:
    """The blobs of one repository."""

    def __init__(self, source: BlobSource, repository: RepositoryName) -> None:
        self._source, self._repository = source, repository

    def get(self, blob: Descriptor, *, start: int, stop: int) -> AbstractAsyncContextManager[Answer]:
        """See ``BlobSource``."""
        return self._source.get_blob(self._repository, blob, start=start, stop=stop)

    def distrust(self, blob: Descriptor) -> bool:
        """See ``BlobSource``."""
        return self._source.distrust(blob)

    async def refusal(self, blob: Descriptor, answer: Answer) -> OciError:
        """What a refusing answer says, as an error."""
        return await error_of(routes.GetBlob(self._repository, blob.digest), answer)
