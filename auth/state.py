"""The port to what must outlive a process: small values by name, changed only by compare-and-swap.

Law: every worker and every replica sees the same state, so no right, robot or refresh token lives in one process.
Names are ``/``-separated components of ``a-z 0-9 . _ -``.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["RECENT", "RecentState", "State", "Stored"]

RECENT: Final = 1.0
"""Seconds for which a request may rely on what it read before. The gate remembers a caller for one more: a revocation
is seen everywhere within two."""

_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True)
class Stored:
    """A value as it was read. ``version``: opaque, new with every write."""

    value: bytes
    version: str


class State(Protocol):
    """Small values by name. Every method may also raise ``StateUnavailable``."""

    async def read(self, name: str) -> Stored | None:
        """The value, or None where there is none."""

    async def write(self, name: str, value: bytes, *, expect: str | None) -> str:
        """Stores ``value`` and returns its version. ``expect``: the version it replaces; None: there must be none.

        Raises:
            StateConflict: that is not what is there. Of several writers with the same ``expect`` exactly one wins.
        """

    async def delete(self, name: str) -> None:
        """Removes the value. Idempotent."""

    def names(self, prefix: str) -> AsyncIterator[str]:
        """The names that begin with ``prefix``, in order; it ends with a ``/``."""


class RecentState:
    """The state as it was at most ``RECENT`` seconds ago, for the path of a request; writes go through at once.

    Bounded: it remembers 4,096 values. That a value is absent is remembered too, so a flood of logins with one unknown
    name does not reach the store.
    """

    def __init__(self, state: State, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = state
        self._clock = clock
        self._seen: OrderedDict[str, tuple[float, Stored | None]] = OrderedDict()

    async def read(self, name: str) -> Stored | None:
        """The value, or None; not older than ``RECENT`` seconds."""
        asked = self._clock()  # before the answer: the value is at least as new as this
        if (seen := self._seen.get(name)) and asked - seen[0] < RECENT:
            return seen[1]
        stored = await self._state.read(name)
        self._seen[name] = (asked, stored)
        self._seen.move_to_end(name)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return stored

    async def write(self, name: str, value: bytes, *, expect: str | None) -> str:
        """As the state does; what was remembered of ``name`` is forgotten."""
        try:
            return await self._state.write(name, value, expect=expect)
        finally:
            self._seen.pop(name, None)

    async def delete(self, name: str) -> None:
        """As the state does; what was remembered of ``name`` is forgotten."""
        try:
            await self._state.delete(name)
        finally:
            self._seen.pop(name, None)

    def names(self, prefix: str) -> AsyncIterator[str]:
        """As the state does: lists are not remembered."""
        return self._state.names(prefix)
