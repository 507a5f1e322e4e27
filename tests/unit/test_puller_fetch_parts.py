"""The pure parts of a fetch: which bytes are there, who fetches which, how many connections are worth having."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.puller.fetch.adaptive import Width
from moorage.puller.fetch.division import Division, Span
from moorage.puller.fetch.extents import Extents

_MIB = 1024 * 1024


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=20), st.integers(0, 30), st.integers(30, 60)
)
def test_extents_are_a_set_of_positions(ranges: list[tuple[int, int]], start: int, stop: int) -> None:
    """Whatever is added in whatever order: the prefix, the size and the gaps are those of the set."""
    extents, there = Extents(), set()
    for first, last in ranges:
        extents.add(first, last)
        there |= set(range(first, last))
    assert extents.size == len(there)
    assert extents.prefix == next(i for i in range(100) if i not in there)
    gaps = list(extents.gaps(start, stop))
    assert {i for first, last in gaps for i in range(first, last)} == set(range(start, stop)) - there
    assert all(first < last for first, last in gaps)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(gaps))


def test_one_worker_gets_all_in_one_request() -> None:
    """Nothing is cut while nobody shares."""
    division = Division([(0, 100 * _MIB)])
    span = division.take(1)
    assert span is not None
    assert (span.position, span.stop) == (0, 100 * _MIB)
    assert division.take(1) is None


def test_a_long_span_makes_room() -> None:
    """What the first connection had not yet reached is cut into pieces, handed out from the front."""
    division = Division([(0, 200 * _MIB)])
    first = division.take(1)
    assert first is not None
    first.position = 10 * _MIB
    assert division.make_room(1)
    second = division.take(2)
    assert second is not None
    assert second.position == first.stop
    assert first.position + 4 * _MIB <= first.stop <= first.position + 16 * _MIB
    assert second.size <= 16 * _MIB


def test_little_is_not_shared() -> None:
    """A connection of its own costs more than the last few megabytes."""
    division = Division([(0, 7 * _MIB)])
    assert division.take(1) is not None
    assert not division.make_room(1)


def test_what_was_not_brought_is_a_gap_again() -> None:
    """A worker that gives up leaves the rest to the others."""
    division = Division([(0, 50 * _MIB)])
    span = division.take(1)
    assert span is not None
    span.position = 20 * _MIB
    division.done(span)
    again = division.take(1)
    assert again is not None
    assert (again.position, again.stop) == (20 * _MIB, 50 * _MIB)


def test_cuts_are_undone_where_there_are_no_ranges() -> None:
    """The first connection brings the rest, as it was asked for."""
    division = Division([(0, 200 * _MIB)])
    first = division.take(1)
    assert first is not None
    division.make_room(1)
    second = division.take(2)
    assert second is not None
    division.done(second)
    division.undo_cuts()
    assert first.stop == 200 * _MIB
    assert division.take(1) is None


@given(st.integers(1, 300 * _MIB), st.lists(st.integers(0, 3), max_size=60))
def test_spans_never_overlap_and_nothing_is_lost(size: int, moves: list[int]) -> None:
    """Whatever workers come, go and fail."""
    division, brought = Division([(0, size)]), []
    spans: list[tuple[Span, int]] = []
    for move in moves:
        if move == 0 and division.make_room(len(spans)) and (span := division.take(len(spans) + 1)):
            spans.append((span, span.position))
        elif spans:
            span, start = spans.pop(0)
            span.position = span.stop if move < 3 else (span.position + span.stop) // 2
            brought.append((start, span.position))
            division.done(span)
    for span, start in spans:
        brought.append((start, span.stop))
        span.position = span.stop
        division.done(span)
    while span := division.take(1):
        brought.append((span.position, span.stop))
        span.position = span.stop
        division.done(span)
    extents = Extents()
    for start, stop in brought:
        extents.add(start, stop)
    assert extents.prefix == size
    assert sum(stop - start for start, stop in brought) == size


class _Line:
    """A network of so many bytes per second for each connection, and in all; and whoever follows the advice."""

    def __init__(self, each: float, total: float, *, most: int = 16) -> None:
        self.width, self.each, self.total = Width(most=most), each, total
        self.now = self.arrived = 0.0
        self.workers = 1

    def run(self, seconds: float, *, is_waiting: bool = True) -> int:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.arrived += min(self.workers * self.each, self.total) * 0.1
            self.width.observe(
                self.now, arrived=int(self.arrived), in_use=self.workers, is_waiting_for_network=is_waiting
            )
            self.workers = max(1, min(self.width.target, self.width.ceiling))
        return self.workers


def test_it_grows_while_that_helps() -> None:
    """Each connection carries little: all that there may be are used, soon."""
    line = _Line(20e6, 1e12)
    assert line.run(0.5) == 1
    assert line.run(4) == 16


def test_it_stops_where_that_does_not_help() -> None:
    """The line is full with one: the second is given back, and not tried again at once."""
    line = _Line(100e6, 100e6)
    assert line.run(4) == 1
    line.run(20)
    assert line.run(2) == 1


def test_it_does_not_grow_while_others_are_the_brake() -> None:
    """More bytes would only wait to be hashed."""
    assert _Line(20e6, 1e12).run(10, is_waiting=False) == 1


def test_trouble_halves_and_rest_follows() -> None:
    """At 429, 5xx and stalls; many at once are one trouble. After the rest it is tried again."""
    line = _Line(20e6, 1e12)
    line.run(5)
    line.width.trouble(line.now, in_use=16)
    line.width.trouble(line.now + 0.1, in_use=8)
    assert line.width.ceiling == 8
    assert line.run(8) == 8
    assert line.run(8) == 16


@pytest.mark.parametrize("most", [1, 3])
def test_there_is_a_most(most: int) -> None:
    """However much more would help."""
    assert _Line(1e6, 1e12, most=most).run(10) == most
