"""Byte ranges, decided without I/O: ``Range`` of a download (RFC 9110 section 14) and ``Content-Range`` of a chunk.

Law: time and answer are bounded whatever the header says (rule A10): at most 8 KiB and 100 ranges are looked at, and
ranges that overlap are not served, so an answer never carries more of a blob than the blob.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from moorage.registry.oci import BlobUploadInvalid

__all__ = ["MAX_HEADER", "MAX_RANGES", "Span", "parse_content_range", "select"]

MAX_HEADER: Final = 8 * 1024
"""Longest Range header looked at, bytes; enough for 100 ranges of the largest numbers."""
MAX_RANGES: Final = 100

_RANGE = re.compile(r"([0-9]*)-([0-9]*)")
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,19})-([0-9]{1,19})(?:/(?:[0-9]{1,19}|\*))?")
_DIGITS = 20
"""A number of more digits is read by its first 20: larger than any blob in any case."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``start`` up to, not including, ``stop``."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Bytes in the span."""
        return self.stop - self.start


def select(header: str, size: int) -> tuple[Span, ...] | None:
    """The spans of a blob of ``size`` bytes that a Range header asks for, in its order.

    None means to ignore the header and send everything (malformed, another unit, too much of it, overlapping, or
    there is nothing to choose from); an empty tuple, that no range can be satisfied.
    """
    unit, equals, text = header.partition("=")
    if size == 0 or len(header) > MAX_HEADER or not equals or unit.lower() != "bytes":
        return None
    # RFC 9110 section 5.6.1: a recipient accepts empty list elements.
    parts = [part for raw in text.split(",") if (part := raw.strip(" \t"))]
    if not 0 < len(parts) <= MAX_RANGES:
        return None
    spans: list[Span] = []
    for part in parts:
        match = _RANGE.fullmatch(part)
        if match is None or part == "-":
            return None
        span = _resolve(*match.groups(), size=size)
        if span.length > 0:
            spans.append(span)
    return None if _overlap(spans) else tuple(spans)


def parse_content_range(header: str | None) -> Span | None:
    """What part of the blob a chunk is (spec "Pushing a blob in chunks": ``<first>-<last>``); None without header.

    RFC 9110's form ``bytes <first>-<last>/<size>`` is understood as well, because clients send it.

    Raises:
        BlobUploadInvalid: neither form, or it ends before it starts.
    """
    if header is None:
        return None
    match = _CONTENT_RANGE.fullmatch(header.strip(" \t"))
    if match is None or int(match[2]) < int(match[1]):
        raise BlobUploadInvalid("malformed Content-Range", detail={"Content-Range": header[:256]})
    return Span(int(match[1]), int(match[2]) + 1)


def _resolve(first: str, last: str, *, size: int) -> Span:
    """One range, clamped to the blob; without length when it cannot be satisfied."""
    if not first:
        return Span(max(0, size - _number(last)), size)
    start = _number(first)
    stop = min(_number(last) + 1, size) if last else size
    return Span(start, stop)


def _number(digits: str) -> int:
    return int(digits.lstrip("0")[:_DIGITS] or "0")


def _overlap(spans: Sequence[Span]) -> bool:
    ordered = sorted(spans, key=lambda span: span.start)
    return any(after.start < before.stop for before, after in pairwise(ordered))
