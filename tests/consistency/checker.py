"""Is there an order in which all answers are right? The search of Wing and Gong with Lowe's memory, for one register.

Law: a history is linearizable if every operation can be given one instant between its call and its return, so that a
register used by one client at a time would have answered the same. Operations without a return may take effect at any
time after their call, or never. Registers are independent, so each is judged alone (promise M4).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from tests.consistency.history import Operation

__all__ = ["judge", "linearizable"]

_State = tuple[int, str | None]
"""Which operations took effect, as bits, and what the register holds then."""


def linearizable(history: Sequence[Operation]) -> bool:
    """Whether one register, absent at first, can have answered so."""
    operations = sorted(history, key=lambda operation: operation.called)
    answered = sum(1 << number for number, operation in enumerate(operations) if operation.returned is not None)
    waiting: list[_State] = [(0, None)]
    seen: set[_State] = set()
    while waiting:
        state = _take_harmless(operations, waiting.pop())
        if state[0] & answered == answered:
            return True
        if state not in seen:
            seen.add(state)
            waiting += _successors(operations, state)
    return False


def judge(name: str, history: Sequence[Operation]) -> str | None:
    """A complaint about the register ``name`` with all that was done to it, or None."""
    if linearizable(history):
        return None
    story = "\n".join(map(str, sorted(history, key=lambda operation: operation.called)))
    return f"{name} is no register:\n{story}"


def _take_harmless(operations: Sequence[Operation], state: _State) -> _State:
    """Lets every operation go first whose answer is right just now and which changes nothing: no order is lost so."""
    taken, value = state
    while True:
        harmless = [
            number
            for number in _possible(operations, taken)
            if operations[number].returned is not None
            and operations[number].agrees_with(value)
            and operations[number].applied_to(value) == value
        ]
        if not harmless:
            return taken, value
        taken |= sum(1 << number for number in harmless)


def _successors(operations: Sequence[Operation], state: _State) -> list[_State]:
    taken, value = state
    following = []
    for number in _possible(operations, taken):
        operation = operations[number]
        after = operation.applied_to(value)
        is_lost = operation.returned is None
        if after != value if is_lost else operation.agrees_with(value):
            following.append((taken | 1 << number, after))
    return following


def _possible(operations: Sequence[Operation], taken: int) -> list[int]:
    """Operations that may be next: those called before any of the others had returned."""
    left = [number for number in range(len(operations)) if not taken >> number & 1]
    first_return = min((operations[number].returned or inf for number in left), default=inf)
    return [number for number in left if operations[number].called < first_return]
