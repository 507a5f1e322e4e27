"""Fetcher: blobs of one repository into a layout, several at a time.

Law: nothing appears in ``blobs/`` before its size and then its digest hold. What arrived stays in ``ingests/`` when a
fetch fails or is killed, and the next one goes on from there. One process fetches a blob; others wait for it, and take
over where it died.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Literal, Protocol, Self

from moorage.puller.errors import Unreachable
from moorage.puller.events import (
    BlobDone,
    BlobProgress,
    BlobSkipped,
    BlobStarted,
    OnEvent,
    Resumed,
    Times,
    Waiting,
    ignore,
)
from moorage.puller.fetch.arrival import Arrival, Opener
from moorage.puller.fetch.ingest import Ingest
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.messages import Answer
from moorage.puller.threads import in_thread
from moorage.registry.oci import Descriptor, Digest, DigestInvalid, RepositoryName

__all__ = ["BlobSource", "Fetched", "Fetcher", "How"]

How = Literal["cached", "full", "ranged", "resumed", "shared"]

_LOOK_AGAIN = 0.1
_PIECE = 1024 * 1024


class BlobSource(Protocol):
    """What a fetch needs of a registry: one method of ``RemoteRegistry``."""

    def get_blob(
        self, repository: RepositoryName, blob: Descriptor, *, start: int, stop: int
    ) -> AbstractAsyncContextManager[Answer]:
        """The registry's answer to a GET of these bytes, not judged: 200, 206, 416, 429, 5xx or another status.

        Raises:
            OciError: no answer could be had.
        """


@dataclass(frozen=True, slots=True)
class Fetched:
    """A blob that is in the layout now. ``fetched``: bytes that came over the network for it, in ``seconds``."""

    descriptor: Descriptor
    source: How
    fetched: int = 0
    seconds: float = 0.0
    times: Times = field(default_factory=Times)


class Fetcher:
    """Brings blobs of one repository into a layout. Use it as an async context manager.

    Args:
        layers: how many blobs move at a time.
        on_event: is called with every event, in the thread of the loop.
    """

    def __init__(
        self,
        source: BlobSource,
        repository: RepositoryName,
        files: LayoutFiles,
        *,
        layers: int = 4,
        on_event: OnEvent = ignore,
    ) -> None:
        self._source, self._repository, self._files = source, repository, files
        self._on_event = on_event
        self._slots = asyncio.Semaphore(layers)
        self._arrivals: dict[Digest, Arrival] = {}
        self._turns: dict[Digest, asyncio.Lock] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for arrival in self._arrivals.values():
            arrival.end(Unreachable("the pull ended before this blob was fetched"))

    def follow(self, blob: Descriptor) -> Opener:
        """What opens the blob for reading from its first byte on, while it arrives or once it is stored.

        It waits, in a thread of the caller's, for the fetch to begin, and so does each read for its bytes. Reads raise
        what the fetch failed with, or ``Restarted``. Bytes read before ``fetch`` has returned are not verified.
        """
        return self._arrival(blob).open

    async def fetch(self, blob: Descriptor) -> Fetched:
        """The blob is in the layout when this returns.

        Raises:
            OciError: it could not be fetched, or is not what the descriptor says.
            OSError: the disk refused.
        """
        arrival = self._arrival(blob)
        async with self._turns.setdefault(blob.digest, asyncio.Lock()):
            try:
                return await self._fetch(blob, arrival)
            except asyncio.CancelledError:
                arrival.end(Unreachable(f"{blob.digest}: the fetch was stopped"))
                raise
            except BaseException as exc:
                arrival.end(exc)
                raise

    async def _fetch(self, blob: Descriptor, arrival: Arrival) -> Fetched:
        if await self._is_stored(blob, arrival):
            self._on_event(BlobSkipped(blob, "exists"))
            return Fetched(blob, "cached")
        async with self._slots:
            ingest = await self._claim(blob)
            if ingest is None:
                await self._is_stored(blob, arrival)
                self._on_event(BlobSkipped(blob, "exists"))
                return Fetched(blob, "shared")
            try:
                arrival.set(ingest.open)
                return await self._complete(ingest)
            except BaseException as exc:
                ingest.fail(exc)
                raise
            finally:
                arrival.set(partial(self._files.open_blob, blob.digest))
                ingest.close()

    async def _is_stored(self, blob: Descriptor, arrival: Arrival) -> bool:
        if not await in_thread(partial(self._files.has_blob, blob.digest)):
            return False
        arrival.set(partial(self._files.open_blob, blob.digest))
        return True

    async def _claim(self, blob: Descriptor) -> Ingest | None:
        """The right to fetch the blob; None when another process has brought it meanwhile."""
        has_waited = False
        while (ingest := Ingest.claim(self._files, blob)) is None:
            if not has_waited:
                self._on_event(Waiting(blob, "another process fetches it"))
            has_waited = True
            await asyncio.sleep(_LOOK_AGAIN)
        if self._files.has_blob(blob.digest):
            ingest.drop()
            ingest.close()
            return None
        return ingest

    async def _complete(self, ingest: Ingest) -> Fetched:
        blob, began = ingest.descriptor, time.monotonic()
        self._on_event(BlobStarted(blob))
        if ingest.resumed:
            self._on_event(Resumed(blob, ingest.resumed))
        how: How = "resumed" if ingest.resumed else "full"
        fetched = await self._download(ingest)
        await in_thread(partial(_check_digest, ingest))
        await in_thread(ingest.publish)
        self._on_event(BlobDone(blob))
        return Fetched(blob, how, fetched, time.monotonic() - began)

    async def _download(self, ingest: Ingest) -> int:
        fetched, blob = 0, ingest.descriptor
        for start, stop in ingest.gaps():
            async with self._source.get_blob(self._repository, blob, start=start, stop=stop) as answer:
                position = start if answer.status == 206 else 0
                async for chunk in answer.chunks():
                    ingest.write(position, memoryview(chunk))
                    position += len(chunk)
                    fetched += len(chunk)
                    self._on_event(BlobProgress(blob, len(chunk)))
        return fetched

    def _arrival(self, blob: Descriptor) -> Arrival:
        return self._arrivals.setdefault(blob.digest, Arrival())


def _check_digest(ingest: Ingest) -> None:
    hasher, buffer = ingest.descriptor.digest.hasher(), bytearray(_PIECE)
    with ingest.open() as file:
        while size := file.readinto(buffer):  # type: ignore[attr-defined]  # our readers are raw files
            hasher.update(memoryview(buffer)[:size])
    if hasher.hexdigest() != ingest.descriptor.digest.hex:
        raise DigestInvalid("the blob does not have its digest", detail={"digest": str(ingest.descriptor.digest)})
