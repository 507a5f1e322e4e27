"""Where what is shown goes.

Law: results go to stdout, everything else to stderr, each line made harmless (``text``).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from moorage.puller.events import Event
from moorage.puller.show.text import printable

__all__ = ["Display", "Silent", "display", "say", "to_json"]


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


def display(*, as_json: bool, moving: str = "copying") -> Display:
    """JSON lines where asked for, bars on a terminal, plain lines elsewhere.

    Args:
        moving: what is done to a blob until it is there, for people.
    """
    if as_json:
        from moorage.puller.show.documents import JsonLines  # noqa: PLC0415 (only the display in use is loaded)

        return JsonLines()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from moorage.puller.show.bars import Bars  # noqa: PLC0415 (rich is loaded only to draw)

        return Bars(moving=moving)
    from moorage.puller.show.lines import PlainLines  # noqa: PLC0415 (only the display in use is loaded)

    return PlainLines(moving=moving)


def say(text: str) -> None:
    """One line to stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def to_json(document: Mapping[str, Any]) -> str:
    """One line of JSON; it is ASCII, so nothing in it needs escaping for a terminal but U+007F."""
    return json.dumps(document, separators=(",", ":")).replace("\x7f", "\\u007f")


class Silent:
    """The part of a display that needs neither start nor end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        return
