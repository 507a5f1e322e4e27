"""An explicit-state explorer: every state that a protocol can reach, and the shortest way to a broken one.

Law: a protocol is a function from a state to its successors; an actor that is never picked again has crashed, so
crashes and arbitrary delays need no modelling. Exploration is breadth-first and complete, or it raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Verdict", "explore"]

State = TypeVar("State", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Verdict(Generic[State]):
    """What exploration found. ``trace``: the states that lead to a broken one, shortest first; empty if it is safe."""

    states: int
    trace: tuple[State, ...]

    @property
    def safe(self) -> bool:
        """Whether no reachable state is broken."""
        return not self.trace


def explore(
    start: State,
    successors: Callable[[State], Iterable[State]],
    is_broken: Callable[[State], bool],
    *,
    limit: int = 1_000_000,
) -> Verdict[State]:
    """Visits every state reachable from ``start`` until one is broken.

    Raises:
        RuntimeError: there are more than ``limit`` states, so nothing was proved.
    """
    parent: dict[State, State | None] = {start: None}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        if is_broken(state):
            return Verdict(len(parent), _way_to(state, parent))
        for following in successors(state):
            if following not in parent:
                parent[following] = state
                waiting.append(following)
        if len(parent) > limit:
            raise RuntimeError(f"more than {limit} states")
    return Verdict(len(parent), ())


def _way_to(state: State, parent: dict[State, State | None]) -> tuple[State, ...]:
    way: list[State] = []
    step: State | None = state
    while step is not None:
        way.append(step)
        step = parent[step]
    return tuple(reversed(way))
