"""Fetcher: blobs of one repository into a layout, several at a time.

Law: nothing appears in ``blobs/`` before its size and then its digest hold. What arrived stays in ``ingests/`` when a
fetch fails or is killed, and the next one goes on from there. One process fetches a blob; others wait for it, and take
over where it died.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Literal, Self

from moorage.puller.errors import Unreachable
from moorage.puller.events import (
    BlobDone,
    BlobSkipped,
    BlobStarted,
    OnEvent,
    Resumed,
    Times,
    Waiting,
    ignore,
)
from moorage.puller.fetch.arrival import Arrival, Opener
from moorage.puller.fetch.download import Download
from moorage.puller.fetch.hashing import Hashing
from moorage.puller.fetch.host import Host
from moorage.puller.fetch.ingest import Ingest
from moorage.puller.fetch.source import BlobOrigin, BlobSource
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.messages import RetryPolicy
from moorage.puller.threads import in_thread, to_the_end
from moorage.registry.oci import Descriptor, Digest, DigestMismatch, RepositoryName
from moorage.registry.oci.values import dataclass, field

__all__ = ["BlobSource", "Fetched", "Fetcher", "How"]

How = Literal["cached", "full", "ranged", "resumed", "shared"]

_LOOK_AGAIN = 0.1
_PATIENT = RetryPolicy(attempts=7)


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
        host: what other fetches from the same host have learned about it.
        retry: how patiently each connection repeats what failed.
        on_event: is called with every event, in the thread of the loop.
    """

    def __init__(
        self,
        source: BlobSource,
        repository: RepositoryName,
        files: LayoutFiles,
        *,
        layers: int = 4,
        host: Host | None = None,
        retry: RetryPolicy | None = None,
        on_event: OnEvent = ignore,
    ) -> None:
        self._origin, self._files = BlobOrigin(source, repository), files
        self._host, self._retry, self._on_event = host or Host(), retry or _PATIENT, on_event
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
            except BaseException as exc:
                arrival.end(_for_readers(exc, blob))
                raise

    async def _fetch(self, blob: Descriptor, arrival: Arrival) -> Fetched:
        if await self._is_stored(blob, arrival):
            self._on_event(BlobSkipped(blob, "exists"))
            return Fetched(blob, "cached")
        if _carries_itself(blob):
            await in_thread(partial(self._files.place_blob, blob.data or b"", blob.digest))
            await self._is_stored(blob, arrival)
            return Fetched(blob, "cached")
        async with self._slots:
            ingest = await self._claim(blob)
            if ingest is None:
                await self._is_stored(blob, arrival)
                self._on_event(BlobSkipped(blob, "exists"))
                return Fetched(blob, "shared")
            try:
                arrival.set(ingest.open)
                fetched = await self._complete(ingest)
            finally:
                arrival.set(None)
                ingest.close()
            arrival.store(partial(self._files.open_blob, blob.digest))
            return fetched

    async def _is_stored(self, blob: Descriptor, arrival: Arrival) -> bool:
        if not await in_thread(partial(self._files.has_blob, blob.digest)):
            return False
        arrival.store(partial(self._files.open_blob, blob.digest))
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
        done = await self._download(ingest)
        while not done.is_right and (ingest.resumed or self._origin.distrust(blob)):
            # What an earlier run left may have been torn by a power cut, a mirror may lie; what comes now is new.
            ingest.restart()
            how, again = "full", await self._download(ingest)
            done = replace(again, fetched=done.fetched + again.fetched, times=done.times + again.times)
        if not done.is_right:
            ingest.drop()
            raise DigestMismatch("the blob does not have its digest", detail={"digest": str(blob.digest)})
        await to_the_end(ingest.publish)  # the lock is held until the blob has its name
        self._on_event(BlobDone(blob))
        how = "ranged" if how == "full" and done.was_ranged else how
        return Fetched(blob, how, done.fetched, time.monotonic() - began, done.times)

    async def _download(self, ingest: Ingest) -> _Done:
        """Brings what is missing while its digest follows."""
        hashing, began = Hashing(ingest), time.monotonic()
        download = Download(
            ingest, self._origin, self._host, hashing=hashing, retry=self._retry, on_event=self._on_event
        )
        try:
            await download.run()
            network = time.monotonic() - began
            is_right = await hashing.finish()
        except BaseException as exc:
            ingest.fail(_for_readers(exc, ingest.descriptor))
            await hashing.stop()
            raise
        times = Times(network=network, hash=hashing.seconds)
        return _Done(is_right, download.fetched, download.was_ranged, times)

    def _arrival(self, blob: Descriptor) -> Arrival:
        return self._arrivals.setdefault(blob.digest, Arrival())


def _carries_itself(blob: Descriptor) -> bool:
    """Whether the descriptor's ``data`` is the blob; a wrong one is as good as none (image-spec descriptor.md)."""
    data = blob.data
    return data is not None and len(data) == blob.size and Digest.of(data, blob.digest.algorithm) == blob.digest


@dataclass(frozen=True, slots=True)
class _Done:
    """How a download ended."""

    is_right: bool
    fetched: int
    was_ranged: bool
    times: Times


def _for_readers(failure: BaseException, blob: Descriptor) -> BaseException:
    """What those who read along are told."""
    return failure if isinstance(failure, Exception) else Unreachable(f"{blob.digest}: the fetch was stopped")
