"""The bytes of a blob, ready to be sent as often as it takes, from any byte on.

Law: bytes that lie in a file of ours are not hashed on their way out; whoever takes them in verifies them, once. Bytes
from another registry are, because two strangers could blame each other.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

from moorage.puller.errors import ImageError
from moorage.puller.events import BlobProgress, OnEvent, Resumed, Retried
from moorage.puller.file_body import FileBody, FileSpan
from moorage.puller.layout import ImageLayout
from moorage.puller.remote import RemoteRegistry
from moorage.puller.transfer.graph import Place
from moorage.puller.uploads import Body
from moorage.registry.oci import Descriptor, Digest

__all__ = ["FileContent", "InFiles", "Meter", "StreamContent", "content_of"]

_CHUNK = 1024 * 1024
_INTERVAL = 0.1
"""Seconds between two reports of progress (law of events)."""


@runtime_checkable
class InFiles(Protocol):
    """A source whose blobs lie in files here."""

    async def blob_span(self, digest: Digest) -> FileSpan:
        """Where the blob lies.

        Raises:
            BlobUnknown: there is no such blob.
        """


class Meter:
    """Counts the bytes of one blob in any thread and reports them in the loop's, a few times a second."""

    def __init__(self, blob: Descriptor, on_event: OnEvent) -> None:
        self._blob, self._on_event = blob, on_event
        self._loop = asyncio.get_running_loop()
        self._pending, self._reported = 0, 0.0
        self.moved = 0
        self.resumed_at = 0

    def count(self, size: int) -> None:
        """Takes note of bytes that were sent; called by one thread at a time."""
        self.moved += size
        self._pending += size
        now = time.monotonic()
        if now - self._reported >= _INTERVAL:
            pending, self._pending, self._reported = self._pending, 0, now
            self._loop.call_soon_threadsafe(self._report, pending)

    def flush(self) -> None:
        """Reports what is left; called when nothing counts any more."""
        pending, self._pending = self._pending, 0
        self._report(pending)

    def resumed(self, offset: int) -> None:
        """See ``uploads.Listener``."""
        self._pending = 0
        self._on_event(Resumed(self._blob, offset))

    def retried(self, error: str, delay: float) -> None:
        """See ``uploads.Listener``."""
        self._on_event(Retried(self._blob, error, delay))

    def _report(self, size: int) -> None:
        if size:
            self._on_event(BlobProgress(self._blob, size))


class FileContent:
    """A blob in a file."""

    def __init__(self, span: FileSpan, meter: Meter) -> None:
        self._span, self._meter = span, meter

    def __str__(self) -> str:
        return self._span.path

    def body(self, start: int, stop: int) -> Body:
        """See ``uploads.Content``."""
        return FileBody(self._span.cut(start, stop), self._meter.count)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """All of it, for a destination here, which hashes it."""
        with open(self._span.path, "rb", buffering=0) as file:  # noqa: ASYNC230 (in a thread it could be lost)
            position = self._span.start
            while position < self._span.stop:
                size = min(_CHUNK, self._span.stop - position)
                chunk = await asyncio.to_thread(os.pread, file.fileno(), size, position)
                if not chunk:
                    raise ImageError(f"{self._span.path} became shorter while it was read")
                position += len(chunk)
                self._meter.count(len(chunk))
                yield chunk

    def is_damaged(self, digest: Digest) -> bool:
        """Whether the bytes are not those of the blob. Blocks while it reads them."""
        hasher = digest.hasher()
        with open(self._span.path, "rb", buffering=0) as file:
            for position in range(self._span.start, self._span.stop, _CHUNK):
                hasher.update(os.pread(file.fileno(), min(_CHUNK, self._span.stop - position), position))
        return hasher.hexdigest() != digest.hex


class StreamContent:
    """A blob of a registry elsewhere."""

    def __init__(self, source: Place, blob: Descriptor, meter: Meter) -> None:
        self._source, self._blob, self._meter = source, blob, meter

    async def body(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """See ``uploads.Content``. Verified where it is the whole blob."""
        end = None if stop == self._blob.size else stop
        registry, repository = self._source.registry, self._source.repository
        async with registry.read_blob(repository, self._blob.digest, start=start, stop=end) as chunks:
            async for chunk in chunks:
                self._meter.count(len(chunk))
                yield chunk

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """All of it, for a destination here, which hashes it."""
        registry, repository = self._source.registry, self._source.repository
        read = registry.read_unverified if isinstance(registry, RemoteRegistry) else registry.read_blob
        async with read(repository, self._blob.digest) as chunks:
            async for chunk in chunks:
                self._meter.count(len(chunk))
                yield chunk


async def content_of(source: Place, blob: Descriptor, meter: Meter) -> FileContent | StreamContent:
    """The blob at its source.

    Raises:
        BlobUnknown: the source does not hold it.
        ImageError: the file of it has another size.
    """
    registry = source.registry
    if isinstance(registry, ImageLayout):
        size = await asyncio.to_thread(registry.files.stat_blob, blob.digest)
        span = FileSpan(registry.files.blob_path(blob.digest), 0, size)
    elif isinstance(registry, InFiles):
        span = await registry.blob_span(blob.digest)
    else:
        return StreamContent(source, blob, meter)
    if span.stop - span.start != blob.size:
        raise ImageError(f"{span.path}: {blob.digest} is {span.stop - span.start} bytes, its manifest says {blob.size}")
    return FileContent(span, meter)
