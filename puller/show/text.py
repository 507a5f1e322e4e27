"""Text for people.

Law: text from outside is escaped before it is shown, so no registry moves the cursor, recolours a log or reorders a
line (rule N9).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from moorage.puller.events import Finished, Packed

__all__ = [
    "counted",
    "few_lines",
    "finished_line",
    "human_rate",
    "human_seconds",
    "human_size",
    "packed_lines",
    "printable",
    "printable_lines",
    "short_digest",
]

_FEW = 10
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str) -> str:
    """``text`` with everything that a terminal would obey, not show, written as an escape."""
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _HIDDEN else char for char in text
    )


def printable_lines(lines: Sequence[str]) -> str:
    """The lines, each made harmless."""
    return "\n".join(map(printable, lines))


def human_size(size: float) -> str:
    """Bytes as people read them: ``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def short_digest(digest: object) -> str:
    """The first 12 hexadecimal digits."""
    return str(digest).partition(":")[2][:12]


def counted(number: int, one: str, many: str) -> str:
    """``1 entry``, ``2 entries``."""
    return f"{number} {one if number == 1 else many}"


def human_seconds(seconds: float) -> str:
    """A duration as people read it: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 100 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} days"


def human_rate(size: float, seconds: float) -> str:
    """Bytes per second: ``12.5 MB/s``."""
    return f"{human_size(size / max(seconds, 0.001))}/s"


def finished_line(done: Finished) -> str:
    """Where the time went: ``112.0 MB in 1.9 s (58.9 MB/s): network 0.8 s, hash 0.2 s, inflate 0.6 s, disk 1.1 s``."""
    pace = f" ({human_rate(done.moved, done.seconds)})" if done.moved else ""
    times = done.times
    parts = (("network", times.network), ("hash", times.hash), ("inflate", times.inflate), ("disk", times.disk))
    busy = ", ".join(f"{name} {human_seconds(seconds)}" for name, seconds in parts if seconds >= 0.05)
    return f"{human_size(done.moved)} in {human_seconds(done.seconds)}{pace}{': ' if busy else ''}{busy}"


def packed_lines(packed: Packed) -> list[str]:
    """What a directory became, and what was left out."""
    size, compressed = human_size(packed.size), human_size(packed.descriptor.size)
    return [
        f"packed {counted(packed.entries, 'entry', 'entries')}, {size}, into {compressed}",
        *few_lines([f"left out: {path}: is a socket" for path in packed.skipped]),
    ]


def few_lines(lines: Sequence[str]) -> list[str]:
    """The first few lines, and how many more there would be."""
    if len(lines) <= _FEW:
        return list(lines)
    return [*lines[:_FEW], f"and {len(lines) - _FEW} more"]
