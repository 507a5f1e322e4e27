"""Text for people.

Law: text from outside is escaped before it is shown, so no registry moves the cursor, recolours a log or reorders a
line (rule N9).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["human_size", "printable", "printable_lines", "short_digest"]

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
