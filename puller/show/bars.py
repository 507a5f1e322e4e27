"""Bars on a terminal, one per blob that moves. Loaded only where there is a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from moorage.puller.events import (
    BlobDone,
    BlobProgress,
    BlobSkipped,
    BlobStarted,
    Event,
    LayerUnpacked,
)
from moorage.registry.oci import Descriptor
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

__all__ = ["Bars"]


class Bars:
    """A ``Display`` for terminals."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
        )
        self._tasks: dict[Descriptor, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case BlobStarted(blob):
                self._progress.reset(self._task(blob), total=blob.size)
            case BlobProgress(blob, size):
                self._progress.advance(self._task(blob), size)
            case BlobDone(blob):
                self._progress.update(self._task(blob), note="done")
            case BlobSkipped(blob, reason):
                self._progress.update(self._task(blob), completed=blob.size, note=reason)
            case LayerUnpacked(layer, entries):
                self._progress.update(self._task(layer), completed=layer.size, note=f"unpacked {entries} entries")
            case _:
                return

    def _task(self, blob: Descriptor) -> TaskID:
        if blob not in self._tasks:
            self._tasks[blob] = self._progress.add_task(blob.digest.hex[:12], total=blob.size, note="")
        return self._tasks[blob]
