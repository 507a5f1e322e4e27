"""The digest of a blob while it arrives, in a thread that follows the file."""

from __future__ import annotations

import time

from moorage.puller.fetch.ingest import Ingest

__all__ = ["Hashing"]

_PIECE = 1024 * 1024


class Hashing:
    """``position``: bytes hashed so far; ``seconds``: how long that took, waiting not counted."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self.position = 0
        self.seconds = 0.0

    def run(self) -> bool:
        """Follows the ingest to its end, blocking; whether the blob has its digest.

        Raises:
            BaseException: what the fetch failed with.
        """
        hasher, buffer = self._ingest.descriptor.digest.hasher(), memoryview(bytearray(_PIECE))
        with self._ingest.follow() as file:
            while size := file.readinto(buffer):
                began = time.monotonic()
                hasher.update(buffer[:size])
                self.position += size
                self.seconds += time.monotonic() - began
        return hasher.hexdigest() == self._ingest.descriptor.digest.hex
