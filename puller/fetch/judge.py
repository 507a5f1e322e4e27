"""What an answer to a GET of a blob, or of a range of it, is good for. Pure but for reading the words of an error.

Law: a range is believed only with the right start and the right total; a length that is not the promised one is refused
before the first byte is read (rules N4, N5).
"""

from __future__ import annotations

import re

from moorage.puller.errors import BadAnswer
from moorage.puller.messages import Answer
from moorage.puller.origins import redact
from moorage.puller.transport import retry_after
from moorage.registry.oci import Descriptor, SizeInvalid, Unavailable

__all__ = ["Expired", "RangeRefused", "Setback", "body_start"]

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})


class Setback(Unavailable):
    """The host cannot answer now. ``delay``: seconds that it asks to wait; ``is_limit``: it wants fewer requests."""

    summary = "the registry cannot answer now"

    def __init__(self, message: str, *, delay: float, is_limit: bool) -> None:
        super().__init__(message)
        self.delay, self.is_limit = delay, is_limit


class Expired(Unavailable):
    """The place that the registry sent us to refuses; the registry may send us to a better one."""

    summary = "the registry sent us to a place that refuses"


class RangeRefused(Unavailable):
    """The host has this blob only whole."""

    summary = "the registry gives no ranges of this blob"


def body_start(answer: Answer, blob: Descriptor, *, start: int, stop: int) -> tuple[int, int]:
    """Which bytes of the blob the answer's body is: from the first to, not including, the second.

    Raises:
        Setback, Expired, RangeRefused: it is none, ask again.
        SizeInvalid, BadAnswer: it is what it must not be.
        LookupError: the registry refuses; the answer's body says why.
    """
    if answer.status in _LATER:
        message = f"{redact(answer.url)}: answered {answer.status}"
        raise Setback(message, delay=retry_after(answer), is_limit=answer.status == 429)
    if answer.status == 206:
        first, last = _range_of(answer, blob, start=start, stop=stop)
    elif answer.status == 200:
        first, last = 0, blob.size
    elif answer.status == 416 and start > 0:
        raise RangeRefused(f"{redact(answer.url)}: answered 416 to bytes {start}-{stop - 1}")
    elif answer.status >= 400 and answer.was_redirected:
        raise Expired(f"{redact(answer.url)}: answered {answer.status}")
    elif answer.status >= 400:
        raise LookupError(answer.status)
    else:
        raise BadAnswer(f"{redact(answer.url)}: answered {answer.status} to a GET of a blob")
    _check_length(answer, blob, last - first)
    return first, last


def _range_of(answer: Answer, blob: Descriptor, *, start: int, stop: int) -> tuple[int, int]:
    match = _RANGE.fullmatch(answer.header("Content-Range") or "")
    if match is None:
        raise BadAnswer(f"{redact(answer.url)}: sent a range without saying which")
    first, last = int(match[1]), int(match[2]) + 1
    if match[3] not in ("*", str(blob.size)):
        raise SizeInvalid(f"{redact(answer.url)}: has {match[3]} bytes of {blob.digest}, {blob.size} were promised")
    if first != start or not first < last <= stop:
        raise BadAnswer(f"{redact(answer.url)}: sent bytes {first}-{last - 1} when asked for {start}-{stop - 1}")
    return first, last


def _check_length(answer: Answer, blob: Descriptor, expected: int) -> None:
    length = answer.content_length
    if length is not None and length != expected:
        raise SizeInvalid(f"{redact(answer.url)}: sends {length} bytes of {blob.digest}, {expected} were promised")
