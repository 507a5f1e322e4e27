"""Registries side by side over one bucket, killed and started again while clients work.

Law: a replica that comes back has another port, as a new machine would; at any time there may be none.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tests.servers import MoorageProcess

__all__ = ["Replicas"]


class Replicas:
    """One process of ``moorage serve`` over each of ``roots``. Use it as a context manager. ``kills``: so far."""

    def __init__(self, roots: Sequence[str], *, environment: dict[str, str]) -> None:
        self._roots, self._environment = roots, environment
        self._running: list[MoorageProcess | None] = [None] * len(roots)
        self.kills = 0
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._stop)
            for number in range(len(self._running)):
                self._start(number)
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def urls(self) -> list[str]:
        """Where the replicas are that run."""
        return [replica.url for replica in self._running if replica is not None]

    def harass(self, stop: threading.Event, *, seed: int) -> None:
        """Kills one after another, at random moments, and starts each again, until ``stop`` is set."""
        dice = random.Random(seed)
        try:
            while not stop.wait(dice.uniform(0.2, 1.5)):
                number = dice.randrange(len(self._running))
                replica, self._running[number] = self._running[number], None
                if replica is not None:
                    replica.kill()
                    self.kills += 1
                self._start(number)
        except BaseException as failure:  # noqa: BLE001  # a thread's failure is told by whoever started it
            self.failure = failure

    def _start(self, number: int) -> None:
        replica = MoorageProcess(self._roots[number], "--drain-delay", "0s", environment=self._environment)
        self._running[number] = replica.__enter__()

    def _stop(self) -> None:
        for replica in self._running:
            if replica is not None:
                replica.__exit__(None, None, None)
