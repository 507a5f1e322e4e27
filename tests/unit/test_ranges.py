"""Byte ranges: the grammar of RFC 9110, our limits, and a naive model beside it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.registry.oci import BlobUploadInvalid
from moorage.registry.web.ranges import MAX_HEADER, MAX_RANGES, Span, parse_content_range, select

SIZE = 1000


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param("bytes=0-0", [(0, 1)], id="first byte"),
        pytest.param("bytes=500-", [(500, 1000)], id="open"),
        pytest.param("bytes=-500", [(500, 1000)], id="suffix"),
        pytest.param("bytes=-5000", [(0, 1000)], id="suffix longer than the blob"),
        pytest.param("bytes=900-5000", [(900, 1000)], id="end clamped"),
        pytest.param("bytes=999-", [(999, 1000)], id="last byte"),
        pytest.param("Bytes=0-9", [(0, 10)], id="unit in another case"),
        pytest.param("bytes=0-1, 5-6", [(0, 2), (5, 7)], id="two"),
        pytest.param("bytes=5-6,0-1", [(5, 7), (0, 2)], id="in the order asked for"),
        pytest.param("bytes=0-1,2-3", [(0, 2), (2, 4)], id="adjacent stay apart"),
        pytest.param("bytes=,0-1,,5-6,", [(0, 2), (5, 7)], id="empty elements"),
        pytest.param("bytes=0-1,5000-", [(0, 2)], id="what cannot be satisfied is left out"),
        pytest.param("bytes=0-" + "9" * 5000, [(0, 1000)], id="a number beyond any parser"),
        pytest.param("bytes=" + "0" * 5000 + "7-8", [(7, 9)], id="leading zeros"),
    ],
)
def test_ranges_are_resolved(header: str, expected: list[tuple[int, int]]) -> None:
    """Single, suffix and open ranges are clamped to the blob."""
    assert select(header, SIZE) == tuple(Span(*span) for span in expected)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("bytes=1000-", id="starts at the end"),
        pytest.param("bytes=5000-6000", id="behind the end"),
        pytest.param("bytes=500-0", id="ends before it starts"),
        pytest.param("bytes=-0", id="no bytes"),
        pytest.param("bytes=" + "9" * 5000 + "-", id="a number beyond any parser"),
        pytest.param("bytes=1000-,500-0", id="none of several"),
    ],
)
def test_unsatisfiable_ranges(header: str) -> None:
    """A range that holds no byte of the blob is an empty choice, which becomes 416."""
    assert select(header, SIZE) == ()


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("", id="empty"),
        pytest.param("bytes", id="no equals sign"),
        pytest.param("bytes=", id="no range"),
        pytest.param("bytes=-", id="only a dash"),
        pytest.param("bytes=,", id="only a comma"),
        pytest.param("bytes=a-b", id="letters"),
        pytest.param("bytes=0x1-2", id="hex"),
        pytest.param("bytes=+1-2", id="sign"),
        pytest.param("bytes=1_0-20", id="underscore"),
        pytest.param("bytes=٣-5", id="digits that are not ASCII"),
        pytest.param("bytes=0-1 0-2", id="no comma"),
        pytest.param("bytes=0 - 1", id="spaces inside"),
        pytest.param("bytes=0-1\n", id="line feed"),
        pytest.param("bytes=0--1", id="two dashes"),
        pytest.param("items=0-1", id="another unit"),
        pytest.param("bytes=0-1,x", id="one of two malformed"),
        pytest.param("bytes=0-5,3-8", id="overlapping"),
        pytest.param("bytes=3-8,0-5", id="overlapping backwards"),
        pytest.param("bytes=0-,-1", id="everything and its end"),
    ],
)
def test_ignored_headers(header: str) -> None:
    """What is malformed, of another unit or overlapping is ignored: the whole blob is sent."""
    assert select(header, SIZE) is None


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=5-"])
def test_an_empty_blob_has_no_ranges(header: str) -> None:
    """Nothing can be chosen from nothing: 200, as clients expect."""
    assert select(header, 0) is None


@pytest.mark.parametrize(("count", "served"), [(MAX_RANGES - 1, True), (MAX_RANGES, True), (MAX_RANGES + 1, False)])
def test_number_of_ranges(count: int, served: bool) -> None:
    """A hundred ranges are served, one more is too many."""
    header = "bytes=" + ",".join(f"{2 * i}-{2 * i}" for i in range(count))
    assert (select(header, SIZE) is not None) == served


@pytest.mark.parametrize(("length", "served"), [(MAX_HEADER - 1, True), (MAX_HEADER, True), (MAX_HEADER + 1, False)])
def test_length_of_the_header(length: int, served: bool) -> None:
    """8 KiB of header are read, one byte more is not."""
    header = "bytes=0-0".ljust(length, ",")
    assert (select(header, SIZE) is not None) == served


@pytest.mark.parametrize("element", ["0-,", "-1,", "0-0,", ",", "9" * 100 + "-,"])
@pytest.mark.parametrize("size", [MAX_HEADER, 64 * 1024])
def test_a10_time_is_bounded(element: str, size: int) -> None:
    """However much is asked for, the decision takes less than 5 ms (rule A10)."""
    header = ("bytes=" + element * size)[:size]
    started = time.thread_time()
    select(header, 2**40)
    assert time.thread_time() - started < 0.005


numbers = st.integers(0, 40).map(str) | st.just("")
headers = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5)


def model(pairs: list[tuple[str, str]], size: int) -> list[list[int]] | None:
    """The bytes that each range asks for, by asking of each byte whether it is meant."""
    if size == 0 or ("", "") in pairs:
        return None
    chosen = []
    for first, last in pairs:
        if first:
            wanted = [b for b in range(size) if int(first) <= b and (not last or b <= int(last))]
        else:
            wanted = [b for b in range(size) if b >= size - int(last)]
        if wanted:
            chosen.append(wanted)
    flat = [byte for wanted in chosen for byte in wanted]
    return None if len(flat) != len(set(flat)) else chosen


@given(pairs=headers, size=st.integers(0, 40))
def test_select_agrees_with_the_model(pairs: list[tuple[str, str]], size: int) -> None:
    """Whatever ranges of whatever blob: the spans are the bytes that were asked for."""
    spans = select("bytes=" + ",".join(f"{first}-{last}" for first, last in pairs), size)
    assert (None if spans is None else [list(range(s.start, s.stop)) for s in spans]) == model(pairs, size)


@given(header=st.text(max_size=40) | st.text("bytes=0123456789-, \t", max_size=60), size=st.integers(0, 2**53))
def test_any_header_is_bounded(header: str, size: int) -> None:
    """No header raises, and no choice is more than the blob."""
    spans = select(header, size) or ()
    assert sum(span.length for span in spans) <= size
    assert all(0 <= span.start < span.stop <= size for span in spans)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param("0-9", Span(0, 10), id="the spec's form"),
        pytest.param("bytes 0-9/10", Span(0, 10), id="RFC 9110"),
        pytest.param("bytes 0-9/*", Span(0, 10), id="size unknown"),
        pytest.param("bytes=5-5", Span(5, 6), id="as in Range"),
        pytest.param(" 0-0 ", Span(0, 1), id="blanks around"),
        pytest.param(None, None, id="absent"),
    ],
)
def test_content_range(header: str | None, expected: Span | None) -> None:
    """A chunk says which bytes of the blob it is."""
    assert parse_content_range(header) == expected


@pytest.mark.parametrize(
    "header", ["", "0", "-", "0-", "-5", "9-0", "a-b", "0-1-2", "٣-5", "0-1\n", "bytes */10", "1e2-200"]
)
def test_malformed_content_range(header: str) -> None:
    """What cannot be understood is refused, not guessed."""
    with pytest.raises(BlobUploadInvalid):
        parse_content_range(header)
