"""Who fetches which bytes of a blob. Pure.

Law: spans never overlap, together they are what is missing, and they are handed out from the front, because whoever
unpacks reads from the front. A single connection gets all there is in one request; when more come, the rest of its
span is cut into pieces for all.
"""

from __future__ import annotations

from moorage.registry.oci.values import dataclass

__all__ = ["Division", "Span"]

_LEAST, _MOST = 4 * 1024 * 1024, 16 * 1024 * 1024
_ROUNDS = 4  # pieces per connection that are left, so that all end at about the same time


@dataclass(slots=True)
class Span:
    """Bytes that one connection fetches: ``position`` moves from the start to ``stop``, which may come nearer.

    ``asked``: up to where the connection would bring them, were it not stopped before.
    """

    position: int
    stop: int
    asked: int

    @property
    def size(self) -> int:
        """Bytes that are still to come."""
        return self.stop - self.position


class Division:
    """What is left of a blob: spans that somebody fetches, and gaps that nobody does yet."""

    def __init__(self, gaps: list[tuple[int, int]]) -> None:
        self._gaps = gaps
        self._spans: list[Span] = []

    @property
    def left(self) -> int:
        """Bytes that are still to come."""
        return sum(stop - start for start, stop in self._gaps) + sum(span.size for span in self._spans)

    def take(self, workers: int) -> Span | None:
        """The next span for one of so many workers; None when nothing is left."""
        if not self._gaps:
            return None
        start, stop = self._gaps.pop(0)
        end = stop if workers <= 1 else min(stop, start + self._piece(workers))
        if stop - end < _LEAST:
            end = stop
        if end < stop:
            self._gaps.insert(0, (end, stop))
        span = Span(start, end, end)
        self._spans.append(span)
        return span

    def done(self, span: Span) -> None:
        """A span ended; what it did not bring is a gap again, unless another connection brings that too."""
        self._spans.remove(span)
        is_covered = any(other.position <= span.position and span.stop <= other.stop for other in self._spans)
        if span.size > 0 and not is_covered:
            self._gaps = sorted([*self._gaps, (span.position, span.stop)])

    def make_room(self, workers: int) -> bool:
        """Whether there is work for one worker more; the longest span is cut for it where it must be."""
        if self._gaps:
            return True
        span = max(self._spans, key=lambda span: span.size, default=None)
        piece = self._piece(workers + 1)
        if span is None or span.size < piece + _LEAST:
            return False
        stop, span.stop = span.stop, span.position + piece
        self._gaps = [(span.stop, stop)]
        return True

    def undo_cuts(self) -> None:
        """Connections bring all that they were asked for, as nobody else can: the host has no ranges."""
        for span in self._spans:
            if span.stop < span.asked:
                self._gaps = [gap for gap in self._gaps if not span.stop <= gap[0] < span.asked]
                span.stop = span.asked

    def clear(self) -> None:
        """Nothing is left: one answer brought it all."""
        self._gaps = []

    def _piece(self, workers: int) -> int:
        return max(_LEAST, min(_MOST, self.left // (workers * _ROUNDS)))
