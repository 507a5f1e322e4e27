"""One blob over one or several connections into its ingest.

Law: every byte goes to its place and no byte beyond the promised size is taken. A failure that may pass is answered by
asking for what is still missing, from the registry on, so that an expired redirect is resolved again. Patience is for
progress: attempts are counted anew only after a chunk has arrived, and never where the host makes us start over.
"""

from __future__ import annotations

import asyncio
import os
import threading

from moorage.puller.errors import RateLimited
from moorage.puller.events import BlobProgress, OnEvent, Retried
from moorage.puller.fetch.division import Division, Span
from moorage.puller.fetch.hashing import Hashing
from moorage.puller.fetch.host import Host
from moorage.puller.fetch.ingest import Ingest
from moorage.puller.fetch.judge import RangeRefused, Setback, body_start
from moorage.puller.fetch.source import BlobOrigin
from moorage.puller.messages import Answer, RetryPolicy
from moorage.puller.workers import first_of
from moorage.registry.oci import SizeInvalid, Unavailable

__all__ = ["Download"]

_TICK = 0.1
_PROGRESS = 1024 * 1024
_BEHIND = 32 * 1024 * 1024
_BUSY = 0.3
"""The part of the time from which on hashing counts as what everybody waits for."""

_CORES = os.cpu_count() or 1


class Download:
    """The bytes of one blob on their way."""

    def __init__(
        self, ingest: Ingest, origin: BlobOrigin, host: Host, *, hashing: Hashing, retry: RetryPolicy, on_event: OnEvent
    ) -> None:
        self._ingest, self._origin, self._host = ingest, origin, host
        self._hashing, self._retry, self._on_event = hashing, retry, on_event
        self._blob = ingest.descriptor
        self._division = Division(ingest.gaps())
        self._workers = self._most_workers = 0
        self._shown = 0
        self._lock = threading.Lock()
        self.fetched = 0

    @property
    def was_ranged(self) -> bool:
        """Whether several connections brought it."""
        return self._most_workers > 1

    async def run(self) -> None:
        """Everything that was missing has arrived when this returns.

        Raises:
            OciError: it could not be had, or is longer or shorter than promised.
        """
        self._host.blobs += 1
        try:
            async with asyncio.TaskGroup() as group:
                ticking = group.create_task(self._tick())
                async with asyncio.TaskGroup() as self._group:
                    self._start_worker()
                ticking.cancel()
        except BaseExceptionGroup as failures:
            raise first_of(failures)  # noqa: B904 ("from" would overwrite the failure's own cause)
        finally:
            self._host.blobs -= 1
            self._show_progress()

    def _start_worker(self) -> None:
        self._workers += 1
        self._host.workers += 1
        self._most_workers = max(self._workers, self._most_workers)
        self._group.create_task(self._work())

    async def _tick(self) -> None:
        """Shows progress, watches the pace, and starts what is worth having: another connection, a hashing thread."""
        while True:
            hashed = self._hashing.seconds
            await asyncio.sleep(_TICK)
            self._show_progress()
            is_behind = self._ingest.arrived - self._hashing.position > _BEHIND
            is_busy = self._hashing.seconds - hashed > _BUSY * _TICK
            self._host.observe(is_waiting_for_network=not is_behind and not is_busy)
            if self._host.blobs + self._ingest.readers < _CORES:
                self._hashing.follow()
            while self._workers and self._host.has_room(self._workers) and self._division.make_room(self._workers):
                self._start_worker()

    def _show_progress(self) -> None:
        moved = self.fetched - self._shown
        if moved:
            self._shown += moved
            self._on_event(BlobProgress(self._blob, moved))

    async def _work(self) -> None:
        try:
            while span := self._division.take(self._workers if self._host.gives_ranges else 1):
                try:
                    await self._bring(span)
                finally:
                    self._division.done(span)
                if self._workers > 1 and (self._host.is_crowded or not self._host.gives_ranges):
                    return
        finally:
            self._workers -= 1
            self._host.workers -= 1

    async def _bring(self, span: Span) -> None:
        """Fetches a span, with patience; returns early where the host gives no ranges and another worker goes on."""
        failures = 0
        while span.size > 0:
            before = span.position
            try:
                async with self._host.connection():
                    await self._ask(span)
            except RangeRefused:
                self._host.gives_ranges = False
                self._division.undo_cuts()
                if self._workers > 1:
                    return
            except Unavailable as exc:
                has_advanced = self._host.gives_ranges and span.position - before >= _PROGRESS
                failures = 1 if has_advanced else failures + 1
                await self._wait(exc, failures)

    async def _wait(self, failure: Unavailable, failures: int) -> None:
        asked = failure.delay if isinstance(failure, Setback) else 0.0
        self._host.trouble(asked)
        if failures >= self._retry.attempts or asked > self._retry.longest_delay:
            if isinstance(failure, Setback) and failure.is_limit:
                raise RateLimited(failure.message, retry_after=asked or None)
            raise failure
        delay = max(asked, self._retry.backoff(failures - 1))
        self._on_event(Retried(self._blob, failure.message, delay))
        await asyncio.sleep(delay)

    async def _ask(self, span: Span) -> None:
        """One request for what the span lacks, or for the whole blob where the host has no ranges."""
        whole = not self._host.gives_ranges
        start, stop = (0, self._blob.size) if whole else (span.position, span.stop)
        span.asked = stop
        async with self._origin.get(self._blob, start=start, stop=stop) as answer:
            try:
                first, last = body_start(answer, self._blob, start=start, stop=stop)
            except LookupError:
                raise await self._origin.refusal(self._blob, answer) from None
            if first == span.position and not whole:
                await self._pour(answer, span, last)
            elif self._workers > 1:
                raise RangeRefused(f"{self._blob.digest}: sent whole when asked for a part")
            else:
                self._host.gives_ranges = False
                await self._pour_whole(answer, span)

    async def _pour(self, answer: Answer, span: Span, last: int) -> None:
        def take(piece: memoryview) -> bool:
            if len(piece) > last - span.position:
                raise self._too_long()
            self._count(len(piece))
            self._keep(span.position, piece[: span.stop - span.position])
            span.position = min(span.position + len(piece), span.stop)
            return span.position < span.stop or span.stop == last

        await answer.pour(take)
        if span.size > 0:
            raise Unavailable(f"{self._blob.digest}: the answer ended {span.size} bytes early")

    async def _pour_whole(self, answer: Answer, span: Span) -> None:
        """Reads the blob from its beginning and keeps what is missing."""
        position = 0

        def take(piece: memoryview) -> bool:
            nonlocal position
            if len(piece) > self._blob.size - position:
                raise self._too_long()
            self._count(len(piece))
            for start, stop in self._ingest.gaps(position, position + len(piece)):
                self._keep(start, piece[start - position : stop - position])
            position += len(piece)
            return True

        await answer.pour(take)
        if position < self._blob.size:
            raise Unavailable(f"{self._blob.digest}: the answer ended {self._blob.size - position} bytes early")
        span.position = span.stop
        self._division.clear()

    def _keep(self, offset: int, piece: memoryview) -> None:
        self._ingest.write(offset, piece)
        self._hashing.take(offset, piece)

    def _count(self, size: int) -> None:
        with self._lock:
            self.fetched += size
        self._host.count(size)

    def _too_long(self) -> SizeInvalid:
        return SizeInvalid(
            f"{self._blob.digest}: more bytes come than the {self._blob.size} that were promised",
            detail={"digest": str(self._blob.digest), "size": self._blob.size},
        )
