"""What fetches have learned about the host they fetch from; shared by all blobs of a pull."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from moorage.puller.fetch.adaptive import Width

__all__ = ["Host"]

_LOOK_AGAIN = 0.05


class Host:
    """Connections in use, connections worth having, and whether ranges are served.

    ``workers``: tasks that ask for one piece after the other, ``blobs``: what they work on.

    Args:
        connections: at most so many at a time.
    """

    def __init__(self, *, connections: int = 16) -> None:
        self.gives_ranges = True
        self.workers = self.blobs = 0
        self._arrived = self._open = 0
        self._lock = threading.Lock()
        self._width = Width(most=connections)
        self._not_before = 0.0

    def __repr__(self) -> str:
        return f"<Host {self.workers} of {self._width.target}, at most {self._width.ceiling}>"

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        """The right to use a connection, as soon as there is one and the host wants to be asked again."""
        while (wait := self._wait()) > 0:  # noqa: ASYNC110 (mostly it is time that passes: nobody would set an event)
            await asyncio.sleep(wait)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def _wait(self) -> float:
        """Seconds after which to look again whether there is a connection to have; 0: there is."""
        until_then = self._not_before - time.monotonic()
        return max(until_then, 0.0) or (_LOOK_AGAIN if self._open >= self._width.ceiling else 0.0)

    def count(self, size: int) -> None:
        """Bytes have arrived; called in any thread."""
        with self._lock:
            self._arrived += size

    def has_room(self, workers: int) -> bool:
        """Whether a blob that has so many workers should have one more: its share of what is worth having."""
        share = -(-self._width.target // max(1, self.blobs))
        is_calm = time.monotonic() >= self._not_before
        return self.gives_ranges and is_calm and self.workers < self._width.target and workers < share

    @property
    def is_crowded(self) -> bool:
        """Whether there are more workers than worth having."""
        return self.workers > self._width.target

    def observe(self, *, is_waiting_for_network: bool) -> None:
        """Looks at how things go; called every now and then by whoever fetches."""
        self._width.observe(
            time.monotonic(),
            arrived=self._arrived,
            in_use=self.workers,
            is_waiting_for_network=is_waiting_for_network,
        )

    def trouble(self, delay: float) -> None:
        """Something broke, or the host asks not to be asked for ``delay`` seconds."""
        now = time.monotonic()
        self._width.trouble(now, in_use=self.workers)
        self._not_before = max(self._not_before, now + delay)
