"""The checker finds what a register must not do, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain, combinations, permutations

import pytest

from tests.consistency.checker import judge, linearizable
from tests.consistency.history import Kind, Operation

READ, PUT, CREATE, SWAP, DELETE = Kind


def one_by_one(*operations: tuple[object, ...]) -> list[Operation]:
    """A history without overlap: each begins when the one before is over. ``(kind, value, expected, done)``."""
    return [Operation(kind, 2 * n, 2 * n + 1, *rest) for n, (kind, *rest) in enumerate(operations)]  # type: ignore[arg-type]


VIOLATIONS = {
    "stale read": one_by_one((PUT, "a"), (PUT, "b"), (READ, "a")),
    "stale absence": one_by_one((PUT, "a"), (READ, None)),
    "a value that nobody wrote": one_by_one((PUT, "a"), (READ, "x")),
    "lost update": one_by_one((PUT, "a"), (SWAP, "b", "a"), (SWAP, "c", "a"), (READ, "c")),
    "a swap that was taken and lost": one_by_one((PUT, "a"), (SWAP, "b", "a"), (READ, "a")),
    "a swap that was refused and took effect": one_by_one((PUT, "a"), (SWAP, "b", "a", False), (READ, "b")),
    "two winners of a create-only put": one_by_one((CREATE, "a"), (CREATE, "b")),
    "no winner of a create-only put": one_by_one((CREATE, "a", None, False)),
    "resurrected by nobody": one_by_one((PUT, "a"), (DELETE,), (READ, "a")),
    "deleted twice": one_by_one((PUT, "a"), (DELETE,), (DELETE,)),
    "two winners at once": [
        Operation(CREATE, 0, 10, "a"),
        Operation(CREATE, 1, 11, "b"),
    ],
    "two swaps of one value at once": [
        *one_by_one((PUT, "a")),
        Operation(SWAP, 2, 10, "b", "a"),
        Operation(SWAP, 3, 11, "c", "a"),
    ],
    "two readers see two writes in two orders": [
        Operation(PUT, 0, 20, "a"),
        Operation(PUT, 1, 21, "b"),
        *[Operation(READ, 2, 3, "a"), Operation(READ, 4, 5, "b"), Operation(READ, 6, 7, "a")],
    ],
    "one lost put that took effect twice": [
        Operation(PUT, 0, None, "a"),
        *[
            Operation(READ, 1, 2, "a"),
            Operation(PUT, 3, 4, "b"),
            Operation(READ, 5, 6, "b"),
            Operation(READ, 7, 8, "a"),
        ],
    ],
    "a lost put that took effect before it was sent": [
        *[Operation(READ, 0, 1, "a"), Operation(PUT, 2, None, "a")],
    ],
    "a delete that a late writer undid": [
        *one_by_one((PUT, "a"), (PUT, "b"), (DELETE,)),
        *[Operation(READ, 10, 11, None), Operation(READ, 12, 13, "b")],
    ],
}

FAIR = {
    "nothing": [],
    "in turn": one_by_one((CREATE, "a"), (SWAP, "b", "a"), (READ, "b"), (DELETE,), (READ, None), (CREATE, "c")),
    "refusals": one_by_one((PUT, "a"), (CREATE, "b", None, False), (SWAP, "c", "b", False), (READ, "a")),
    "a delete of nothing": one_by_one((DELETE, None, None, False), (READ, None)),
    "a read between may see either": [
        Operation(PUT, 0, 9, "a"),
        Operation(READ, 1, 2, "a"),
        Operation(READ, 3, 4, "a"),
    ],
    "a lost put that never happened": [Operation(PUT, 0, None, "a"), Operation(READ, 1, 2, None)],
    "a lost put that happens late": [
        *[
            Operation(PUT, 0, None, "a"),
            Operation(PUT, 1, 2, "b"),
            Operation(READ, 3, 4, "b"),
            Operation(READ, 5, 6, "a"),
        ],
    ],
    "a lost create-only put that won": [Operation(CREATE, 0, None, "a"), Operation(CREATE, 1, 2, "b", None, False)],
    "a lost delete between two creators": [
        *[Operation(CREATE, 0, 1, "a"), Operation(DELETE, 2, None), Operation(CREATE, 3, 4, "b")],
    ],
}


@pytest.mark.parametrize("history", [pytest.param(history, id=name) for name, history in VIOLATIONS.items()])
def test_violations_are_found(history: Sequence[Operation]) -> None:
    """Each kind of wrong answer, in a history of its own."""
    assert not linearizable(history)


@pytest.mark.parametrize("history", [pytest.param(history, id=name) for name, history in FAIR.items()])
def test_what_a_register_may_do_passes(history: Sequence[Operation]) -> None:
    """Overlap and lost answers allow several orders; one is enough."""
    assert linearizable(history)


def test_a_complaint_tells_the_story() -> None:
    """Every operation in order of its call, with its answer."""
    story = judge("r:1", VIOLATIONS["two winners of a create-only put"])
    assert story is not None
    assert [line.split()[-3:] for line in story.splitlines()[1:]] == [["put", "a:", "done"], ["put", "b:", "done"]]
    assert judge("r:1", FAIR["in turn"]) is None


def simulated(dice: random.Random, length: int, *, lost: float = 0.15) -> list[Operation]:
    """What clients of a true register see: every operation takes effect between its call and its return."""
    value: str | None = None
    moments = [(dice.random() + number / 6, number) for number in range(length)]
    history = []
    for moment, number in sorted(moments):
        kind = dice.choice(list(Kind))
        expected = dice.choice((value, value, "nothing")) if kind is SWAP else None
        written = f"v{number}" if kind in (PUT, CREATE, SWAP) else value
        asked = Operation(kind, int(1e9 * (moment - dice.random())), None, written, expected or "nothing")
        asked_value, value = value, asked.applied_to(value) if dice.random() > 0.05 or kind is READ else value
        answered = [done for done in (True, False) if _with(asked, done).agrees_with(asked_value)]
        took_effect = value == asked.applied_to(asked_value)
        if dice.random() < lost or not took_effect:
            history += [asked] if kind is not READ else []
        else:
            history.append(_with(asked, answered[0], returned=int(1e9 * (moment + dice.random()))))
    return history


def _with(operation: Operation, done: bool, returned: int | None = None) -> Operation:
    return Operation(operation.kind, operation.called, returned, operation.value, operation.expected, done)


@pytest.mark.parametrize("seed", range(60))
def test_no_false_alarm(seed: int) -> None:
    """Whatever a true register does, with many clients and lost answers, is found to be in order."""
    history = simulated(random.Random(seed), 40)
    assert judge("simulated", history) is None


@pytest.mark.parametrize("seed", range(20))
def test_the_search_agrees_with_trying_everything(seed: int) -> None:
    """On short histories, right and wrong, with the plain definition: some order of some of the lost ones."""
    dice = random.Random(seed)
    verdicts = set()
    for _ in range(60):
        history = simulated(dice, 5)
        if history and dice.random() < 0.7:
            spoilt = dice.randrange(len(history))
            one = history[spoilt]
            value = dice.choice(("v0", "v1", None)) if one.kind is READ else one.value
            history[spoilt] = Operation(one.kind, one.called, one.returned, value, one.expected, not one.done)
        verdicts.add(linearizable(history))
        assert linearizable(history) == any(map(_is_right, _orders(history)))
    assert verdicts == {True, False}


def _orders(history: Sequence[Operation]) -> Iterator[tuple[Operation, ...]]:
    answered = [operation for operation in history if operation.returned is not None]
    lost = [operation for operation in history if operation.returned is None]
    subsets = chain.from_iterable(combinations(lost, count) for count in range(len(lost) + 1))
    return chain.from_iterable(permutations([*answered, *subset]) for subset in subsets)


def _is_right(order: tuple[Operation, ...]) -> bool:
    value = None
    for place, operation in enumerate(order):
        if any(later.returned is not None and later.returned < operation.called for later in order[place + 1 :]):
            return False
        if operation.returned is not None and not operation.agrees_with(value):
            return False
        value = operation.applied_to(value)
    return True
