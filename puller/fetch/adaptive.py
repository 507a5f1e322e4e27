"""How many connections to a host are worth having. Pure: it is told the time and the bytes.

Law: one connection per blob to begin with. More are tried while all of them are busy and the network is what everybody
waits for; they are kept if the total grew by a tenth, given back if not, and tried again much later. Trouble (429, 5xx,
a stall, a broken connection) halves what may be used.
"""

from __future__ import annotations

__all__ = ["Width"]

_SETTLE = 0.2  # a new connection needs a few round trips before it carries anything
_MEASURE = 0.3
_GAIN = 1.1
_FIRST_GROWTH = 4  # a single connection is the common case, and a download is over soon
_REST = 10.0
_TROUBLE_SPACING = 1.0  # when many connections fail at once, that is one trouble


class Width:
    """``target``: connections that are worth having; ``ceiling``: connections that there may be at all."""

    def __init__(self, *, most: int) -> None:
        self.target, self.ceiling, self._most = 1, most, most
        self._in_use = 0
        self._measure_from = self._rest_until = self._trouble_at = 0.0
        self._mark: tuple[float, int] | None = None
        self._before: tuple[int, float] | None = None

    def observe(self, now: float, *, arrived: int, in_use: int, is_waiting_for_network: bool) -> None:
        """Looks at the total of bytes that arrived until ``now`` (seconds) over ``in_use`` connections."""
        if in_use != self._in_use:
            if self._before is not None and in_use <= self._before[0]:
                self._before = None  # blobs ended: nothing to compare with
            self._in_use, self._measure_from, self._mark = in_use, now + _SETTLE, None
        elif now >= self._measure_from and in_use:
            if self._mark is None:
                self._mark = (now, arrived)
            elif now - self._mark[0] >= _MEASURE:
                rate = (arrived - self._mark[1]) / (now - self._mark[0])
                self._mark = (now, arrived)
                self._judge(now, rate, is_waiting_for_network)

    def trouble(self, now: float, *, in_use: int) -> None:
        """Something broke, or the host asked for less than so many connections."""
        if now - self._trouble_at >= _TROUBLE_SPACING:
            self._trouble_at, self._rest_until, self._before = now, now + _REST, None
            self.ceiling = self.target = max(1, min(in_use, self.ceiling) // 2)

    def _judge(self, now: float, rate: float, is_waiting_for_network: bool) -> None:
        if self._before is not None:
            width, rate_before = self._before
            self._before = None
            if rate < rate_before * _GAIN:
                self.target, self._rest_until = width, now + _REST
                return
        if now >= self._rest_until and is_waiting_for_network:
            self._before = (self._in_use, rate)
            self.target = min(self._in_use * (_FIRST_GROWTH if self._in_use == 1 else 2), self._most)
            self.ceiling = max(self.ceiling, self.target)
