"""How far a transfer is, as a value that events change and a display draws. Neither clock nor terminal in here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum

from moorage.puller.events import (
    BlobDone,
    BlobProgress,
    BlobSkipped,
    BlobStarted,
    Event,
    Finished,
    LayerUnpacked,
    ManifestDone,
    Packed,
    Resolved,
    Resumed,
    Retried,
    UnpackProgress,
    Waiting,
    Warned,
)
from moorage.puller.show.text import counted
from moorage.registry.oci import Descriptor, Digest
from moorage.registry.oci.values import dataclass, field

__all__ = ["Phase", "Progress", "Row"]

_WINDOW = 3.0  # seconds over which a rate is taken: long enough to read, short enough to be true
_SAMPLES = 64
_SKIPPED = {"exists": "already here"}


class Phase(Enum):
    """What happens to a blob; the value is its word."""

    WAITING = "waiting"
    MOVING = "moving"
    UNPACKING = "unpacking"
    DONE = "done"


class Pace:
    """Bytes per second over the last moments."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)

    def add(self, size: int, now: float) -> None:
        """Counts ``size`` bytes that came at ``now``."""
        self._samples.append((now, size))

    def rate(self, now: float) -> float:
        """Bytes per second; 0 where nothing came lately."""
        while self._samples and self._samples[0][0] < now - _WINDOW:
            self._samples.popleft()
        if len(self._samples) < 2:
            return 0.0
        first = self._samples[0][0]
        # The first sample's bytes came before its time.
        return (sum(size for _, size in self._samples) - self._samples[0][1]) / max(now - first, 0.001)


@dataclass(slots=True)
class Row:
    """One blob. ``moved``, ``unpacked``: bytes of the blob; ``note``: why it waits, or how it came to be here;
    ``failure``: why it is asked for again, until it goes on.
    """

    blob: Descriptor
    phase: Phase = Phase.WAITING
    moved: int = 0
    unpacked: int = 0
    note: str = ""
    failure: str = ""
    retries: int = 0
    began: float | None = None
    ended: float | None = None
    pace: Pace = field(default_factory=Pace)
    unpacking: Pace = field(default_factory=Pace)

    @property
    def is_layer(self) -> bool:
        """Whether people want to see it: configs are too small to watch."""
        return "config" not in self.blob.media_type


class Progress:
    """Feed it events. ``clock``: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rows: dict[Digest, Row] = {}
        self.pace, self.unpacking = Pace(), Pace()
        self.resolved: Resolved | None = None
        self.finished: Finished | None = None

    @property
    def rows(self) -> list[Row]:
        """The blobs, in the image's order where that was told, else as they came."""
        return list(self._rows.values())

    def __call__(self, event: Event) -> None:
        """Takes an event."""
        match event:
            case Resolved(content=content):
                self.resolved = event
                for blob in content:
                    self._row(blob)
            case Finished():
                self.finished = event
            case ManifestDone() | Packed() | Warned():
                return
            case _:
                self._change(event, self._row(event.descriptor), self._clock())

    def _change(
        self,
        event: Waiting | BlobStarted | Resumed | BlobProgress | Retried | BlobDone | BlobSkipped | UnpackProgress
        | LayerUnpacked,
        row: Row,
        now: float,
    ) -> None:  # fmt: skip
        row.began = row.began if row.began is not None else now
        match event:
            case Waiting(_, reason):
                row.note = reason
            case BlobStarted():
                row.phase, row.moved, row.note = Phase.MOVING, 0, ""
            case Resumed(_, offset):
                row.moved, row.note = offset, "resumed"
            case BlobProgress(blob, size):
                row.phase, row.moved, row.failure = Phase.MOVING, min(row.moved + size, blob.size), ""
                row.pace.add(size, now)
                self.pace.add(size, now)
            case Retried(_, error):
                row.retries, row.failure = row.retries + 1, error
            case BlobDone(blob):
                self._end(row, now)
            case BlobSkipped(_, reason):
                row.note, row.began = _SKIPPED.get(reason, reason), None
                self._end(row, now)
            case UnpackProgress(blob, size):
                row.unpacked = min(row.unpacked + size, blob.size)
                row.unpacking.add(size, now)
                self.unpacking.add(size, now)
                if row.phase is not Phase.MOVING:
                    row.phase, row.ended = Phase.UNPACKING, None
            case LayerUnpacked(blob, entries):
                notes = (row.note, counted(entries, "entry", "entries"))
                row.unpacked, row.note = blob.size, ", ".join(filter(None, notes))
                self._end(row, now)

    def _end(self, row: Row, now: float) -> None:
        row.moved, row.ended, row.failure = row.blob.size, now, ""
        is_under_way = 0 < row.unpacked < row.blob.size
        row.phase = Phase.UNPACKING if is_under_way else Phase.DONE

    def _row(self, blob: Descriptor) -> Row:
        return self._rows.setdefault(blob.digest, Row(blob))
