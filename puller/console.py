"""What people see: lines, bars, JSON.

Law: results go to stdout, everything else to stderr; text from outside is escaped before it is shown, so no registry
moves the cursor, recolours a log or reorders a line (rule N9).
"""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from moorage.puller.events import (
    BlobDone,
    BlobProgress,
    BlobSkipped,
    BlobStarted,
    Event,
    LayerUnpacked,
    ManifestDone,
    Resolved,
)

__all__ = ["Display", "display", "human_size", "printable", "say", "to_json"]

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class Display(Protocol):
    """Shows the events of a transfer while its block runs."""

    def __enter__(self) -> Self:
        """Starts showing."""

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops showing."""

    def __call__(self, event: Event) -> None:
        """Shows one event."""


def display(*, as_json: bool) -> Display:
    """JSON lines where asked for, bars on a terminal, plain lines elsewhere."""
    if as_json:
        return _JsonLines()
    if sys.stderr.isatty():
        from moorage.puller.bars import Bars  # noqa: PLC0415 (rich is loaded only to draw)

        return Bars()
    return _PlainLines()


def printable(text: str) -> str:
    """``text`` with everything that a terminal would obey, not show, written as an escape."""
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _HIDDEN else char for char in text
    )


def say(text: str) -> None:
    """One line to stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def to_json(document: Mapping[str, Any]) -> str:
    """One line of JSON; it is ASCII, so nothing in it needs escaping for a terminal but U+007F."""
    return json.dumps(document, separators=(",", ":")).replace("\x7f", "\\u007f")


def human_size(size: float) -> str:
    """Bytes as people read them: ``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


class _Silent:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class _PlainLines(_Silent):
    """A line for what begins and ends; nothing in between, for logs."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Resolved(reference, descriptor, blobs, size):
                name = "" if reference == str(descriptor.digest) else f"{reference} is "
                say(f"{name}{descriptor.digest}: {blobs} blobs, {human_size(size)}")
            case BlobStarted(blob):
                self._started[str(blob.digest)] = time.monotonic()
            case BlobDone(blob):
                seconds = time.monotonic() - self._started.pop(str(blob.digest))
                say(f"{_short(blob.digest)}  copied {human_size(blob.size)} in {seconds:.1f} s")
            case BlobSkipped(blob, reason):
                say(f"{_short(blob.digest)}  {reason}, {human_size(blob.size)}")
            case LayerUnpacked(layer, entries, size):
                say(f"{_short(layer.digest)}  unpacked {entries} entries, {human_size(size)}")
            case ManifestDone() | BlobProgress():
                return


class _JsonLines(_Silent):
    """One document per event on stdout; progress within a blob is left out."""

    def __call__(self, event: Event) -> None:
        match event:
            case Resolved(reference, descriptor, blobs, size):
                facts = {"reference": reference, "blobs": blobs, "total": size}
            case BlobSkipped(descriptor, reason):
                facts = {"reason": reason}
            case LayerUnpacked(descriptor, entries, size):
                facts = {"entries": entries, "unpacked": size}
            case BlobStarted(descriptor) | BlobDone(descriptor) | ManifestDone(descriptor):
                facts = {}
            case BlobProgress():
                return
        head = {"event": type(event).__name__, "digest": str(descriptor.digest), "size": descriptor.size}
        print(to_json({**head, **facts}), flush=True)


def _short(digest: object) -> str:
    return str(digest).partition(":")[2][:12]
