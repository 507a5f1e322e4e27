"""Which bytes of a file are there: disjoint half-open ranges ``start`` to ``stop``, in order. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

__all__ = ["Extents"]


class Extents:
    """A set of byte positions, kept as ranges."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def __repr__(self) -> str:
        return f"<Extents {list(zip(self._starts, self._stops, strict=True))}>"

    def add(self, start: int, stop: int) -> None:
        """Puts the bytes from ``start`` to ``stop`` in; touching ranges become one."""
        if start >= stop:
            return
        first, last = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    @property
    def prefix(self) -> int:
        """How many bytes are there from the beginning on without a gap."""
        return self._stops[0] if self._starts and self._starts[0] == 0 else 0

    @property
    def size(self) -> int:
        """How many bytes are there in all."""
        return sum(self._stops) - sum(self._starts)

    def gaps(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The ranges within ``start`` to ``stop`` that are not there, in order."""
        for index in range(bisect_right(self._stops, start), len(self._starts)):
            if self._starts[index] >= stop:
                break
            if start < self._starts[index]:
                yield start, self._starts[index]
            start = self._stops[index]
        if start < stop:
            yield start, stop
