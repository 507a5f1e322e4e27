"""The digest of a blob while it arrives: of the bytes in hand, or in a thread of its own that follows the file.

Law: each byte is hashed once, in order, by one thread at a time. Whoever receives bytes hashes them, where processors
have other blobs to work on meanwhile: that saves reading them again, and waking a thread for each piece. A blob with
the line to itself gets a thread that hashes, so that receiving and hashing overlap; so does what an earlier run left.
"""

from __future__ import annotations

import asyncio
import threading
import time

from moorage.puller.fetch.ingest import Ingest
from moorage.puller.threads import in_thread

__all__ = ["Hashing"]

_PIECE = 1024 * 1024


class Hashing:
    """``position``: bytes hashed so far; ``seconds``: how long that took, waiting not counted."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest, self._blob = ingest, ingest.descriptor
        self._hasher = self._blob.digest.hasher()
        self._lock = threading.Lock()
        self._following: asyncio.Task[None] | None = None
        self.position = 0
        self.seconds = 0.0
        if ingest.arrived:
            self.follow()

    def take(self, offset: int, piece: memoryview) -> None:
        """Hashes what has just come, if it is what comes next and nobody else does. For threads."""
        if self._following is None and offset == self.position and self._lock.acquire(blocking=False):
            try:
                self._add(piece)
            finally:
                self._lock.release()

    def follow(self) -> None:
        """From now on a thread of its own hashes what arrives."""
        if self._following is None:
            self._following = asyncio.ensure_future(in_thread(self._run))

    async def finish(self) -> bool:
        """Whether the blob has its digest, once all of it has arrived.

        Raises:
            OSError: it could not be read.
        """
        if self.position < self._blob.size:
            self.follow()
        if self._following is not None:
            await asyncio.shield(self._following)
        return self._hasher.hexdigest() == self._blob.digest.hex

    async def stop(self) -> None:
        """Waits for the thread, which the ingest has told that nothing more comes."""
        if self._following is not None:
            await asyncio.wait({self._following})
            self._following.cancelled() or self._following.exception()  # the fetch's own failure, or its end

    def _run(self) -> None:
        buffer = memoryview(bytearray(_PIECE))
        with self._lock, self._ingest.follow(self.position) as file:
            while size := file.readinto(buffer):
                self._add(buffer[:size])

    def _add(self, piece: memoryview) -> None:
        began = time.monotonic()
        self._hasher.update(piece)
        self.position += len(piece)
        self.seconds += time.monotonic() - began
