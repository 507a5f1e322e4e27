"""What the killed uploads of these tests send: a piece of a tail, a part, and a piece again."""

from __future__ import annotations

from typing import Final

__all__ = ["CONTENT", "CUTS"]

CONTENT: Final = bytes(range(256)) * (12 * 4096) + b"behind the part" * 3000
CUTS: Final = {"in pieces": 40_000, "at once": len(CONTENT)}
"""Where the first of two appends ends."""
