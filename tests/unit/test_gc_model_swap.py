"""The collection protocol that DESIGN 4 did not choose: one record per digest, changed by compare-and-swap only.

It is safe too, on stores that keep conditional writes, and shows what a later choice would have to keep: every part
left out leads to a visible reference whose bytes are gone. One digest, two writers, one deleter, two collectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest

from tests.explorer import Verdict, explore

_MAX_GENERATION = 3


class Record(NamedTuple):
    """What the digest's one record says. ``version`` is new with every write."""

    state: str
    generation: int
    version: int


_NOTHING = Record("", -1, -1)


class Actor(NamedTuple):
    """A writer or a collector: its next step, the record it read, the generation it uploaded, what it marked."""

    step: str
    seen: Record = _NOTHING
    generation: int = -1
    marked: bool = False


class World(NamedTuple):
    """All that is stored, and where everybody stands. Edges are absent, pending or visible."""

    record: Record = Record("live", 0, 0)
    data: frozenset[int] = frozenset({0})
    edges: tuple[str, ...] = ("visible", "", "")
    writers: tuple[Actor, ...] = (Actor("choose"), Actor("choose"))
    collectors: tuple[Actor, ...] = (Actor("mark 0"), Actor("mark 0"))
    fresh: int = 1
    version: int = 1

    def write(self, state: str, generation: int) -> World:
        """The record rewritten."""
        return self._replace(record=Record(state, generation, self.version), version=self.version + 1)


@dataclass(frozen=True, slots=True)
class Rules:
    """The protocol's parts."""

    checks_again: bool = True
    new_key_for_every_upload: bool = True
    marks_twice: bool = True
    compares_before_writing: bool = True
    hides_unchecked_edges: bool = True

    def may_write(self, world: World, actor: Actor) -> bool:
        """Whether a swap goes through."""
        return not self.compares_before_writing or world.record == actor.seen


def is_dangling(world: World) -> bool:
    """A visible edge to bytes that are gone."""
    reachable = world.record.state in ("live", "condemned") and world.record.generation in world.data
    return "visible" in world.edges and not reachable


def check(rules: Rules) -> Verdict[World]:
    """Explores the protocol under ``rules``."""

    def successors(world: World) -> Iterator[World]:
        if world.edges[0]:
            yield world._replace(edges=("", *world.edges[1:]))
        for number in range(2):
            yield from _writer(world, number, rules)
            yield from _collector(world, number, rules)

    return explore(World(), successors, is_dangling)


def _writer(world: World, number: int, rules: Rules) -> Iterator[World]:
    writer = world.writers[number]
    record = world.record

    def go(step: str, *, to: World = world, edge: str | None = None, **changes: Any) -> World:
        edges = to.edges if edge is None else _at(to.edges, number + 1, edge)
        return to._replace(writers=_at(to.writers, number, Actor(step, **changes)), edges=edges)

    match writer.step:
        case "choose" if record.state == "live":
            yield go("write edge")
        case "choose" if record.state == "condemned":
            yield go("rescue", seen=record)
        case "choose" if world.fresh <= _MAX_GENERATION:
            generation = world.fresh if rules.new_key_for_every_upload else 0
            stored = world._replace(data=world.data | {generation}, fresh=world.fresh + 1)
            yield go("commit", to=stored, seen=record, generation=generation)
        case "rescue":
            fits = rules.may_write(world, writer)
            yield go("write edge", to=world.write("live", writer.seen.generation)) if fits else go("choose")
        case "commit":
            fits = record == writer.seen
            yield go("write edge", to=world.write("live", writer.generation)) if fits else go("choose")
        case "write edge":
            hidden = rules.hides_unchecked_edges and rules.checks_again
            yield go("check" if rules.checks_again else "done", edge="pending" if hidden else "visible")
        case "check" if record.state == "live":
            yield go("publish")
        case "check" if record.state == "condemned":
            yield go("rescue again", seen=record)
        case "check":
            yield go("failed", edge="")
        case "rescue again":
            fits = rules.may_write(world, writer)
            yield go("publish", to=world.write("live", writer.seen.generation)) if fits else go("check")
        case "publish":
            yield go("done", edge="visible")


def _collector(world: World, number: int, rules: Rules) -> Iterator[World]:
    collector = world.collectors[number]
    record = world.record
    condemned = "again 0" if rules.marks_twice else "delete"

    def go(step: str, *, to: World = world, **changes: Any) -> World:
        # Collectors are alike: which of them stands where does not matter, and sorting them halves the states.
        return to._replace(collectors=tuple(sorted(_at(to.collectors, number, Actor(step, **changes)))))

    match collector.step.split():
        case ["mark" | "again" as scan, place]:
            marked = collector.marked or bool(world.edges[int(place)])
            after = {"mark": ("look", "done"), "again": ("delete", "revive")}[scan][marked]
            last = place == "2"
            step = after if last else f"{scan} {int(place) + 1}"
            yield go(step, seen=collector.seen, marked=marked and not last)
        case ["look"] if record.state == "condemned":
            yield go(condemned, seen=record)
        case ["look"]:
            yield go("condemn", seen=record) if record.state == "live" else go("done")
        case ["condemn"] if record == collector.seen:
            written = world.write("condemned", record.generation)
            yield go(condemned, to=written, seen=written.record)
        case ["revive"] if record == collector.seen:
            yield go("done", to=world.write("live", record.generation))
        case ["delete"] if rules.may_write(world, collector):
            yield go("remove", to=world.write("gone", collector.seen.generation), seen=collector.seen)
        case ["remove"]:
            yield go("done", to=world._replace(data=world.data - {collector.seen.generation}))
        case ["condemn" | "revive" | "delete"]:
            yield go("done")


def _at(items: tuple[Any, ...], index: int, value: object) -> tuple[Any, ...]:
    return (*items[:index], value, *items[index + 1 :])


def test_the_swapping_protocol_is_safe() -> None:
    """In every reachable state, and there are many."""
    verdict = check(Rules())
    assert verdict.safe, verdict.trace
    assert verdict.states > 10_000


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(replace(Rules(), checks_again=False), id="no check after writing the edge"),
        pytest.param(replace(Rules(), new_key_for_every_upload=False), id="one data key per digest"),
        pytest.param(replace(Rules(), marks_twice=False), id="no second mark"),
        pytest.param(replace(Rules(), compares_before_writing=False), id="writes without comparing"),
        pytest.param(replace(Rules(), hides_unchecked_edges=False), id="edge visible before it is checked"),
    ],
)
def test_every_part_of_the_swapping_protocol_is_needed(rules: Rules) -> None:
    """Left out, a schedule exists that deletes what somebody can see."""
    verdict = check(rules)
    assert not verdict.safe
    assert is_dangling(verdict.trace[-1])
