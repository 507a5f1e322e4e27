"""The access log: one JSON object per request and line, on a file descriptor.

Law of secrets: no header but User-Agent is ever written, and of the query only parameters known to be harmless.
Law of lines: whatever a client sends stays inside its string (control characters are escaped, lengths are limited), and
a line is never torn, also where several workers write to one pipe.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

_log = logging.getLogger(__name__)

__all__ = ["AccessLog", "Entry", "harmless_query"]

HARMLESS: Final = frozenset({"n", "last", "digest", "mount", "from", "tag", "artifactType", "ns", "digest-algorithm"})
"""Query parameters that are written out; of any other one only the name could be a secret too, so nothing is."""

MAX_PATH: Final = 1024
MAX_QUERY: Final = 512
MAX_AGENT: Final = 200

_FLUSH_AFTER: Final = 0.1  # seconds that a line may wait for others: one write for many
_ATOMIC: Final = select.PIPE_BUF  # bytes that a pipe takes whole


class Entry(msgspec.Struct, omit_defaults=True):
    """One request. ``bytes``: of the answer's body; ``ms``: from the head to the end of the answer."""

    time: str
    method: str
    path: str
    status: int
    bytes: int
    ms: float
    client: str
    agent: str
    id: str
    query: str = ""
    received: int = 0
    cut: bool = False


class AccessLog:
    """Writes entries, gathered over a tenth of a second; ``flush`` writes what is left."""

    def __init__(self, descriptor: int, *, clock: Callable[[], float] = time.time) -> None:
        self._descriptor = descriptor
        self._clock = clock
        self._lines: list[bytes] = []
        self._encode = msgspec.json.Encoder().encode
        self._second = -1
        self._stamp = ""
        self._broken = False

    def now(self) -> str:
        """The time in UTC, to the millisecond."""
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._stamp}.{int((now - second) * 1000):03}Z"

    def write(self, entry: Entry) -> None:
        """Queues a line."""
        if not self._lines:
            asyncio.get_running_loop().call_later(_FLUSH_AFTER, self.flush)
        self._lines.append(self._encode(entry))

    def flush(self) -> None:
        """Writes what is queued, in pieces that are not torn."""
        lines, self._lines = self._lines, []
        try:
            for piece in _pieces(lines):
                os.write(self._descriptor, piece)
            self._broken = False
        except OSError as exc:  # a full disk or a reader that is gone must not stop the registry
            if not self._broken:
                _log.warning("cannot write the access log, its lines are lost: %s", exc.strerror)
            self._broken = True


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    """The lines, joined as far as a pipe takes them whole."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) + 1 > _ATOMIC:
            yield piece
            piece = b""
        piece += line + b"\n"
    if piece:
        yield piece


def harmless_query(query: bytes) -> str:
    """The parameters of a raw query that may be written down, undecoded."""
    kept = [
        part for part in query[: 8 * MAX_QUERY].split(b"&") if part.partition(b"=")[0].decode("latin-1") in HARMLESS
    ]
    return b"&".join(kept)[:MAX_QUERY].decode("latin-1")
