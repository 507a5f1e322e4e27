"""The steps of unpacking one layer, each in a thread of its own: read and inflate, hash, and whoever takes the archive.

Law: between two steps lie at most ``_DEPTH`` chunks, so a layer of any size costs a few MiB. A failure passes down to
who takes the archive, and closing there stops every step at its next chunk. Large buffers are inflated, hashed and
written without the interpreter's lock, so the steps run side by side.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from moorage.puller.errors import BrokenLayer, UnsafeLayer
from moorage.puller.events import Times
from moorage.puller.unpack.inflate import inflate
from moorage.puller.unpack.layer import Layer

__all__ = ["Archive"]

_DEPTH = 4


class _Step:
    """Runs an iterator of chunks in a thread, at most ``_DEPTH`` ahead of who iterates here. Close it after use.

    ``busy``: seconds of processor time of the thread, once it has ended; ``waited``: seconds that its reader waited.
    """

    def __init__(self, name: str, make_chunks: Callable[[], Iterator[bytes]]) -> None:
        self._make_chunks = make_chunks
        self._chunks: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        self._is_closed = False
        self.busy = self.waited = 0.0
        for _ in range(_DEPTH):
            self._room.put(None)
        threading.Thread(target=self._run, name=f"moorage-{name}", daemon=True).start()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            began = time.perf_counter()
            chunk = self._chunks.get()
            self.waited += time.perf_counter() - began
            if chunk is None:
                return
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk
            self._room.put(None)

    def close(self) -> None:
        """Lets the thread end. It is not waited for: it may be reading bytes that have yet to arrive."""
        self._is_closed = True
        self._room.put(None)
        self._chunks.put(None)

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            self._run_to_end()
        except BaseException as exc:  # noqa: BLE001  # it is raised where the chunks are taken
            end = exc
        self.busy = time.thread_time()
        self._chunks.put(end)

    def _run_to_end(self) -> None:
        for chunk in self._make_chunks():
            self._room.get()
            if self._is_closed:
                return
            self._chunks.put(chunk)


class Archive:
    """The uncompressed bytes of a layer, counted and hashed ahead of who iterates. Use it as a context.

    ``size``: bytes so far.

    Raises:
        UnsafeLayer: while iterated; it becomes more than ``limit`` bytes.
        BrokenLayer: while iterated; its compression is damaged.
        Exception: while iterated; what reading the blob failed with.
    """

    def __init__(self, layer: Layer, *, limit: int) -> None:
        self._layer = layer
        self._limit = limit
        self._hasher = layer.diff_id.hasher()
        self.size = 0
        self._inflated = _Step("inflate", self._inflate)
        self._hashed = _Step("hash", self._hash)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hashed.close()
        self._inflated.close()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._hashed)

    @property
    def waited(self) -> float:
        """Seconds that iterating waited for chunks."""
        return self._hashed.waited

    @property
    def times(self) -> Times:
        """Processor seconds of the steps; valid when the last chunk was taken."""
        return Times(inflate=self._inflated.busy, hash=self._hashed.busy)

    def check(self) -> None:
        """To be called when the last chunk was taken.

        Raises:
            BrokenLayer: it is not what the image's config names.
        """
        if self._hasher.hexdigest() != self._layer.diff_id.hex:
            raise BrokenLayer("it is not the layer that the image's config names")

    def _inflate(self) -> Iterator[bytes]:
        with self._layer.open() as file:  # here, so that nobody closes it while this thread reads
            yield from inflate(file)

    def _hash(self) -> Iterator[bytes]:
        for chunk in self._inflated:
            self.size += len(chunk)
            if self.size > self._limit:
                raise UnsafeLayer(f"it becomes more than {self._limit} bytes")
            self._hasher.update(chunk)
            yield chunk
