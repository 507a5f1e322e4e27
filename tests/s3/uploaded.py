"""What the killed uploads of these tests send: a piece of a tail, a part, and a piece again."""

from __future__ import annotations

from typing import Final

__all__ = ["CONTENT", "CUT"]

CUT: Final = 40_000
CONTENT: Final = bytes(range(256)) * (12 * 4096) + b"behind the part" * 3000
