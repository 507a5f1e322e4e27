"""Progress on a terminal: a line per blob, the total below, and where the time went at the end.

Law: every line fits the terminal as it is at that moment, and so does their number: what there is no room for is
counted, not shown. rich is loaded when there is something to draw, so what is done at once is done without it.
One bar shows both ways of a layer: bright is unpacked, plain has arrived, dim is still to come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from moorage.puller.events import BlobSkipped, Event, Finished, ManifestDone, Packed, Resolved, Warned
from moorage.puller.show.console import say
from moorage.puller.show.progress import Phase, Progress, Row
from moorage.puller.show.text import (
    counted,
    finished_line,
    human_rate,
    human_seconds,
    human_size,
    packed_lines,
    printable,
    short_digest,
)

__all__ = ["Bars", "Line", "draw"]

Line = list[tuple[str, str]]
"""Pieces of one line: text, and rich's name of its style."""

_REFRESHES = 10  # per second
_NAME = 15  # mark, blank, 12 digits of the digest, blank
_BAR, _LEAST_BAR = 40, 6
_TAILS = (56, 40, 28, 11)  # what is said of a row: state, bytes, rate, time left; and less
_OVERHEAD = 3  # lines that are not rows: header, total, and the one the cursor is in
_STYLES = {Phase.WAITING: "dim", Phase.MOVING: "cyan", Phase.UNPACKING: "yellow", Phase.DONE: "green"}
_ORDER = (Phase.MOVING, Phase.UNPACKING, Phase.WAITING, Phase.DONE)
"""Who is shown first when there is no room for all."""


class Bars:
    """A ``Display`` for terminals. ``moving``: what is done to a blob until it is there."""

    def __init__(self, *, moving: str = "moving", clock: Callable[[], float] = time.monotonic) -> None:
        self._moving = moving
        self._clock = clock
        self._progress = Progress(clock)
        self._live: _Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._progress.finished is not None:
            say(finished_line(self._progress.finished))

    def __call__(self, event: Event) -> None:
        self._progress(event)
        if isinstance(event, Packed):
            for line in packed_lines(event):
                say(line)
        elif isinstance(event, Warned):
            say(f"warning: {event.message}")
        elif self._live is None and not isinstance(event, Resolved | BlobSkipped | ManifestDone | Finished):
            self._live = _Live(self._draw)

    def _draw(self, width: int, height: int) -> list[Line]:
        return draw(self._progress, self._clock(), moving=self._moving, width=width, height=height)


class _Live:
    """Draws again and again in a thread of rich's, until it is stopped; lines that others say move above."""

    def __init__(self, lines: Callable[[int, int], list[Line]]) -> None:
        from rich.console import Console, ConsoleOptions, RenderResult  # noqa: PLC0415 (see the law)
        from rich.live import Live  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        console = Console(stderr=True, highlight=False)

        class Drawing:
            def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
                ascii_only = options.ascii_only
                for line in lines(options.max_width, console.height):
                    text = Text.assemble(*line, no_wrap=True, overflow="crop", end="")
                    yield Text(text.plain.translate(_ASCII), no_wrap=True) if ascii_only else text
                    yield Text()

        self._live = Live(
            Drawing(), console=console, refresh_per_second=_REFRESHES, redirect_stdout=False, vertical_overflow="crop"
        )
        self._live.start()

    def stop(self) -> None:
        """Draws for the last time."""
        self._live.stop()


_ASCII = str.maketrans({"━": "=", "╸": ">", "─": "-", "✓": "*", "…": "."})


def draw(progress: Progress, now: float, *, moving: str, width: int, height: int) -> list[Line]:
    """The lines for a terminal of ``width`` columns and ``height`` rows; none is longer, and they are not more."""
    rows = [row for row in progress.rows if row.is_layer] or progress.rows
    shown, left_out = _select(rows, max(height - _OVERHEAD - 1, 1))
    lines = [_header(progress.resolved, width)] if progress.resolved else []
    lines += [_row_line(row, moving, now, width) for row in shown]
    if left_out:
        lines.append([(_clip("  " + _count(left_out, moving), width), "dim")])
    if progress.finished is None:
        lines.append(_total_line(progress, now, width))
    return [_cut(line, width) for line in lines]


def _cut(line: Line, width: int) -> Line:
    """What of the line fits; only terminals too narrow for a digest cut anything."""
    pieces: Line = []
    for text, style in line:
        pieces.append((text[:width], style))
        width -= len(pieces[-1][0])
    return pieces


def _select(rows: list[Row], room: int) -> tuple[list[Row], list[Row]]:
    """The rows to show, in the image's order, and those there is no room for."""
    if len(rows) <= room:
        return rows, []
    first = sorted(range(len(rows)), key=lambda at: (_ORDER.index(rows[at].phase), at))[: room - 1]
    chosen = set(first)
    return [row for at, row in enumerate(rows) if at in chosen], [
        row for at, row in enumerate(rows) if at not in chosen
    ]


def _count(rows: list[Row], moving: str) -> str:
    counts = ((phase, sum(row.phase is phase for row in rows)) for phase in _ORDER)
    return "… and " + ", ".join(
        f"{count} {moving if phase is Phase.MOVING else phase.value}" for phase, count in counts if count
    )


def _header(resolved: Resolved, width: int) -> Line:
    about = f"  {counted(resolved.blobs, 'blob', 'blobs')}, {human_size(resolved.size)}"
    return [
        (_clip(printable(resolved.reference), max(width - len(about), 8)), "bold"),
        (_clip(about, width // 2), "dim"),
    ]


def _row_line(row: Row, moving: str, now: float, width: int) -> Line:
    mark = "✓ " if row.phase is Phase.DONE else "  "
    name = f"{short_digest(row.blob.digest)} "
    room = min(width - _NAME, _TAILS[0] + _BAR)
    tail = next((tail for tail in _TAILS if tail + _LEAST_BAR <= room), _TAILS[-1])
    line: Line = [(mark, "green"), (_clip(name, width - 2), "dim" if row.phase is Phase.WAITING else "")]
    if room < _TAILS[-1]:
        return line
    return [*line, *_bar(row, room - tail), *_about(row, moving, now, tail)]


def _about(row: Row, moving: str, now: float, room: int) -> Line:
    """What is said of a row, right of its bar: exactly ``room`` columns, fewer things where that is less."""
    word = "retrying" if row.failure else moving if row.phase is Phase.MOVING else row.phase.value
    head: Line = [(f" {word:<9} ", "red" if row.failure else _STYLES[row.phase])]
    said = printable(row.failure or (row.note if row.phase is Phase.WAITING else ""))
    if row.phase is Phase.DONE:
        said = f"{human_size(row.blob.size):>9}  {_history(row)}"
    if said or row.phase is Phase.WAITING:
        said = said or f"{human_size(row.blob.size):>9}"
        return [*head, (_clip(said, room - 11).ljust(room - 11), "dim")]
    return [*head, *_figures(row, now, room)]


def _figures(row: Row, now: float, room: int) -> Line:
    is_here = row.phase is Phase.UNPACKING
    done, rate = (row.unpacked, row.unpacking.rate(now)) if is_here else (row.moved, row.pace.rate(now))
    left = (row.blob.size - done) / rate if rate else 0.0
    columns: Line = [
        (f"{_of(done, row.blob.size):>17}", ""),
        (f"{human_rate(rate, 1) if rate else '':>12}", "dim"),
        (f"{human_seconds(left) + ' left' if rate else '':>16}", "dim"),
    ]
    return columns[: len(_TAILS) - 1 - _TAILS.index(room)]


def _history(row: Row) -> str:
    took = human_seconds(row.ended - row.began) if row.ended is not None and row.began is not None else ""
    again = counted(row.retries, "retry", "retries") if row.retries else ""
    return ", ".join(part for part in (took, printable(row.note), again) if part)


def _of(done: int, size: int) -> str:
    """``12.1 / 24.0 MB``, the unit once."""
    unit = human_size(size).split(" ")[1]
    scale = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    digits = {"B": 0, "kB": 1, "MB": 1}.get(unit, 2)
    return f"{done / scale:.{digits}f} / {size / scale:.{digits}f} {unit}"


def _bar(row: Row, width: int) -> Iterator[tuple[str, str]]:
    size = max(row.blob.size, 1)
    unpacked = width * row.unpacked // size
    moved = max(width * row.moved // size, unpacked)
    yield "━" * unpacked, "bold green"
    yield "━" * (moved - unpacked), "cyan" if row.phase is not Phase.DONE else "green"
    yield "─" * (width - moved), "dim"


def _total_line(progress: Progress, now: float, width: int) -> Line:
    moved, size = sum(row.moved for row in progress.rows), sum(row.blob.size for row in progress.rows)
    size = max(progress.resolved.size if progress.resolved else 0, size)
    rate, what = progress.pace.rate(now), ""
    if moved >= size and any(row.phase is Phase.UNPACKING for row in progress.rows):
        layers = [row for row in progress.rows if row.unpacked]
        moved, size = sum(row.unpacked for row in layers), sum(row.blob.size for row in layers)
        rate, what = progress.unpacking.rate(now), "unpacked "
    parts = [what + _of(moved, size)]
    if rate:
        parts += [human_rate(rate, 1), f"{human_seconds((size - moved) / rate)} left"]
    return [(_clip("  total        " + "   ".join(parts), width), "bold")]


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"
