"""How big the pieces may be in which bytes are gathered: the more transfers at once, the smaller.

Law: together they stay below a bound, and nobody waits for memory, so that slow clients cannot keep it from quick ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

__all__ = ["Pieces"]

_MOST: Final = 1 << 20
_LEAST: Final = 16 << 10
"""Bytes; what arrives at once is never cut, so a piece may exceed its size by one read of a socket."""

_TOGETHER: Final = 32 << 20
"""Bytes of all pieces of one kind. Of two kinds (to be hashed, to be written) there are two each: 128 MiB in all."""


class Pieces:
    """The pieces of one kind, of all transfers of one worker. ``size``: bytes of one, for now."""

    def __init__(self) -> None:
        self._transfers = 0
        self.size = _MOST

    @contextlib.contextmanager
    def transfer(self) -> Iterator[None]:
        """One more transfer gathers pieces while the block lasts."""
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def _change(self, by: int) -> None:
        self._transfers += by
        self.size = max(_LEAST, min(_MOST, _TOGETHER // max(1, self._transfers)))
