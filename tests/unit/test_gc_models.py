"""The collection protocol of DESIGN 4, checked state by state before any of it is trusted with data.

One digest, two writers, one deleter, two collectors; scans are not atomic, every delete may come arbitrarily late, and
anybody may stop for ever at any step. The protocol with all its parts is safe in every reachable state; each part left
out leads to an answered reference whose bytes are gone.

Writer:    choose a generation or upload one · write the edge (pending) · check · publish · check · answer
  check:   read the generation's doom, then (``looks_at_bytes``) whether the generation is still there
Collector: mark · doom · mark again · delete the generation · (``forgets_dooms``) remove the doom

What stands in ``registry/store`` is ``BUILT``: a pending edge may be given up at any time, but not overlooked, and is
published by compare-and-swap, which fails once it was given up. That makes the check after publishing needless, so
nothing that was seen is ever taken back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

import pytest

from tests.explorer import Verdict, explore

_NO_GENERATION = -1
_MAX_GENERATIONS = 4


class Edge(IntEnum):
    """A reference of one repository to the digest."""

    NONE, PENDING, PUBLISHED, ANSWERED = range(4)


class Actor(NamedTuple):
    """A writer or a collector: the step it takes next, the generation it works on, whether it saw a reference."""

    step: str
    generation: int = _NO_GENERATION
    saw_edge: bool = False


class World(NamedTuple):
    """All that is stored, and where everybody stands. Repository 0 begins with an old, answered reference."""

    data: frozenset[int] = frozenset({0})
    doom: frozenset[int] = frozenset()
    edges: tuple[Edge, ...] = (Edge.ANSWERED, Edge.NONE, Edge.NONE)
    writers: tuple[Actor, ...] = (Actor("choose"), Actor("choose"))
    collectors: tuple[Actor, ...] = (Actor("mark 0"), Actor("mark 0"))
    fresh: int = 1


@dataclass(frozen=True, slots=True)
class Rules:
    """The protocol's parts. The defaults are what DESIGN 4 builds, but for the two that widen the model."""

    checks_before_publishing: bool = True
    checks_after_publishing: bool = True
    looks_at_bytes: bool = True
    marks_twice: bool = True
    dooms_are_final: bool = True
    forgets_dooms: bool = True
    pending_may_expire: bool = True
    collects_older_copies: bool = False
    gives_up_pending: bool = False
    publishes_by_swap: bool = False
    looks_for_the_newer_copy_again: bool = True


FULL = Rules()
# The smallest protocol: dooms stay for ever and pending edges count until their writer removes them.
BASE = Rules(checks_after_publishing=False, looks_at_bytes=False, forgets_dooms=False, pending_may_expire=False)
WITH_COPIES = replace(BASE, collects_older_copies=True)
BUILT = Rules(checks_after_publishing=False, pending_may_expire=False, gives_up_pending=True, publishes_by_swap=True)


def check(rules: Rules) -> Verdict[World]:
    """Explores the protocol under ``rules``."""

    def successors(world: World) -> Iterator[World]:
        if world.edges[0] is Edge.ANSWERED:
            yield world._replace(edges=(Edge.NONE, *world.edges[1:]))
        for number in range(len(world.writers)):
            yield from writer_steps(world, number, rules)
            if rules.gives_up_pending and world.edges[number + 1] is Edge.PENDING:
                yield world._replace(edges=_at(world.edges, number + 1, Edge.NONE))
        for number in range(len(world.collectors)):
            yield from collector_steps(world, number, rules)

    return explore(World(), successors, is_dangling)


def is_dangling(world: World) -> bool:
    """An answered reference whose bytes are gone: the one thing that must never be."""
    return not world.data and Edge.ANSWERED in world.edges


def writer_steps(world: World, number: int, rules: Rules) -> Iterator[World]:
    """What writer ``number``, whose edge is ``number + 1``, may do next."""
    writer = world.writers[number]
    match writer.step:
        case "choose":
            yield from _choose(world, number, rules)
        case "write edge":
            yield _write(world, number, Edge.PENDING, "check 1" if rules.checks_before_publishing else "publish")
        case "check 1" | "check 2":
            yield from _check(world, number, rules)
        case "look 1" | "look 2":
            is_there = writer.generation in world.data
            yield _passed(world, number, writer.step) if is_there else _write(world, number, Edge.NONE, "failed")
        case "publish" if rules.publishes_by_swap and world.edges[number + 1] is not Edge.PENDING:
            yield _write(world, number, Edge.NONE, "failed")
        case "publish":
            last = not rules.checks_after_publishing
            yield _write(world, number, Edge.ANSWERED if last else Edge.PUBLISHED, "done" if last else "check 2")
        case "answer":
            yield _write(world, number, Edge.ANSWERED, "done")


def _choose(world: World, number: int, rules: Rules) -> Iterator[World]:
    sound = world.data - world.doom
    for generation in sound:
        yield _write(world, number, None, "write edge", generation)
    if (not sound or rules.collects_older_copies) and world.fresh < _MAX_GENERATIONS:
        yield _upload(world, number, "write edge")


def _check(world: World, number: int, rules: Rules) -> Iterator[World]:
    writer = world.writers[number]
    if writer.generation not in world.doom:
        look = f"look {writer.step[-1]}"
        yield _write(world, number, None, look) if rules.looks_at_bytes else _passed(world, number, look)
    elif writer.generation in world.data and world.fresh < _MAX_GENERATIONS:
        yield _upload(world, number, writer.step)
    else:
        yield _write(world, number, Edge.NONE, "failed")


def _passed(world: World, number: int, step: str) -> World:
    return _write(world, number, None, "publish" if step.endswith("1") else "answer")


def _upload(world: World, number: int, step: str) -> World:
    stored = world._replace(data=world.data | {world.fresh}, fresh=world.fresh + 1)
    return _write(stored, number, None, step, world.fresh)


def _write(world: World, number: int, edge: Edge | None, step: str, generation: int | None = None) -> World:
    """Writer ``number`` goes on to ``step``; None keeps the edge or the generation as it is."""
    old = world.writers[number]
    writer = Actor(step, old.generation if generation is None else generation)
    edges = world.edges if edge is None else _at(world.edges, number + 1, edge)
    return world._replace(writers=_at(world.writers, number, writer), edges=edges)


def collector_steps(world: World, number: int, rules: Rules) -> Iterator[World]:
    """What collector ``number`` may do next."""
    collector = world.collectors[number]
    generation = collector.generation
    match collector.step:
        case "mark 0" | "mark 1" | "mark 2" | "again 0" | "again 1" | "again 2":
            yield from _mark(world, number, rules)
        case "doom":
            doomed = world._replace(doom=world.doom | {generation})
            yield _collect(doomed, number, "again 0" if rules.marks_twice else "delete", generation)
        case "doom older":
            doomed = world._replace(doom=world.doom | {generation})
            step = "look for newer" if rules.looks_for_the_newer_copy_again else "delete"
            yield _collect(doomed, number, step, generation)
        case "look for newer":
            yield _collect(world, number, "delete" if _has_newer(world, generation) else "done", generation)
        case "delete":
            deleted = world._replace(data=world.data - {generation})
            yield _collect(deleted, number, "forget" if rules.forgets_dooms else "done", generation)
        case "forget":
            yield _collect(world._replace(doom=world.doom - {generation}), number, "done")


def _mark(world: World, number: int, rules: Rules) -> Iterator[World]:
    """One repository of a scan. A pending edge that may expire is seen or not, as it happens."""
    collector = world.collectors[number]
    scan, _, repository = collector.step.partition(" ")
    edge = world.edges[int(repository)]
    for seen in (True, False) if edge is Edge.PENDING and rules.pending_may_expire else (edge is not Edge.NONE,):
        saw_edge = seen or collector.saw_edge
        if repository != "2":
            step = f"{scan} {int(repository) + 1}"
            yield _collect(world, number, step, collector.generation, saw_edge=saw_edge)
        elif scan == "again":
            yield _decide(world, number, saw_edge, rules)
        elif saw_edge:
            yield _collect(world, number, "done")
        else:
            yield from (_collect(world, number, "doom", generation) for generation in world.data)
    if rules.collects_older_copies and collector.step == "mark 0":
        older = (generation for generation in world.data if _has_newer(world, generation))
        yield from (_collect(world, number, "doom older", generation) for generation in older)


def _decide(world: World, number: int, saw_edge: bool, rules: Rules) -> World:
    generation = world.collectors[number].generation
    if not saw_edge:
        return _collect(world, number, "delete", generation)
    doom = world.doom if rules.dooms_are_final else world.doom - {generation}
    return _collect(world._replace(doom=doom), number, "done")


def _has_newer(world: World, generation: int) -> bool:
    return any(other > generation and other not in world.doom for other in world.data)


def _collect(
    world: World, number: int, step: str, generation: int = _NO_GENERATION, *, saw_edge: bool = False
) -> World:
    # Collectors are alike, so which of them stands where does not matter: sorting halves the states.
    changed = _at(world.collectors, number, Actor(step, generation, saw_edge))
    return world._replace(collectors=tuple(sorted(changed)))


def _at(items: tuple, index: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*items[:index], value, *items[index + 1 :])


@pytest.mark.parametrize(
    ("rules", "at_least"),
    [
        pytest.param(BASE, 10_000, id="smallest protocol"),
        pytest.param(replace(BASE, pending_may_expire=True, checks_after_publishing=True), 20_000, id="expiring edges"),
        pytest.param(WITH_COPIES, 50_000, id="several copies of one digest"),
        pytest.param(FULL, 60_000, id="two checks, edges overlooked when they are old"),
        pytest.param(BUILT, 60_000, id="as built: edges given up, published by swap"),
        pytest.param(replace(BUILT, collects_older_copies=True), 300_000, id="as built, and several copies"),
    ],
)
def test_the_protocol_never_loses_an_answered_reference(rules: Rules, at_least: int) -> None:
    """Promise M5 in every reachable state. ``at_least``: a model that got stuck early would prove nothing."""
    verdict = check(rules)
    assert verdict.safe, verdict.trace
    assert verdict.states > at_least


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(replace(BASE, checks_before_publishing=False), id="writer does not check"),
        pytest.param(replace(BASE, marks_twice=False), id="collector marks once"),
        pytest.param(replace(BASE, dooms_are_final=False), id="collector takes a doom back"),
        pytest.param(replace(BASE, pending_may_expire=True), id="pending edges expire, no check after publishing"),
        pytest.param(replace(FULL, checks_after_publishing=False), id="no check after publishing"),
        pytest.param(replace(FULL, looks_at_bytes=False), id="dooms are removed, writer reads only the doom"),
        pytest.param(replace(FULL, marks_twice=False), id="all parts but the second mark"),
        pytest.param(replace(BUILT, publishes_by_swap=False), id="as built, but published whatever became of the edge"),
        pytest.param(replace(BUILT, pending_may_expire=True), id="as built, but old edges overlooked and not given up"),
        pytest.param(replace(BUILT, checks_before_publishing=False), id="as built, but no check"),
        pytest.param(replace(BUILT, looks_at_bytes=False), id="as built, but the writer reads only the doom"),
        pytest.param(replace(BUILT, marks_twice=False), id="as built, but one mark"),
        pytest.param(replace(WITH_COPIES, looks_for_the_newer_copy_again=False), id="newer copy not looked for again"),
    ],
)
def test_every_part_of_the_protocol_is_needed(rules: Rules) -> None:
    """Left out, a schedule exists that deletes what somebody was told is there."""
    verdict = check(rules)
    assert not verdict.safe
    assert is_dangling(verdict.trace[-1])


class LinkWorld(NamedTuple):
    """A repository's links on a digest that another repository keeps alive, so that its data is never doomed."""

    links: frozenset[str] = frozenset({"old"})
    dooms: frozenset[str] = frozenset()
    edge: Edge = Edge.NONE
    writer: str = "find link"
    collector: str = "mark"


@pytest.mark.parametrize(
    ("own_link", "link_doom", "safe"),
    [
        pytest.param(False, False, False, id="only generations are doomed"),
        pytest.param(False, True, True, id="links are doomed too"),
        pytest.param(True, False, True, id="every manifest writes a link of its own"),
    ],
)
def test_a_collected_link_never_hides_a_needed_blob(own_link: bool, link_doom: bool, safe: bool) -> None:
    """An answered manifest keeps a link in its repository; DESIGN 4 chose the ``m-`` link of its own."""

    def successors(world: LinkWorld) -> Iterator[LinkWorld]:
        yield from _link_writer(world, own_link, link_doom)
        yield from _link_collector(world, link_doom)

    verdict = explore(LinkWorld(), successors, lambda world: world.edge is Edge.ANSWERED and not world.links)
    assert verdict.safe is safe


def _link_writer(world: LinkWorld, own_link: bool, link_doom: bool) -> Iterator[LinkWorld]:
    doomed = link_doom and "old" in world.dooms
    match world.writer:
        case "find link":
            yield world._replace(writer="write edge" if world.links - world.dooms else "failed")
        case "write edge":
            yield world._replace(edge=Edge.PENDING, writer="write link" if own_link else "check 1")
        case "write link":
            yield world._replace(links=world.links | {"own"}, writer="check 1")
        case "check 1" | "check 2" if doomed:
            yield world._replace(edge=Edge.NONE, writer="failed")
        case "check 1":
            yield world._replace(writer="publish")
        case "publish":
            yield world._replace(edge=Edge.PUBLISHED, writer="check 2")
        case "check 2":
            yield world._replace(writer="answer")
        case "answer":
            yield world._replace(edge=Edge.ANSWERED, writer="done")


def _link_collector(world: LinkWorld, link_doom: bool) -> Iterator[LinkWorld]:
    match world.collector:
        case "mark" | "mark again" if world.edge is not Edge.NONE:
            yield world._replace(collector="done")
        case "mark":
            yield world._replace(collector="doom")
        case "doom":
            yield world._replace(dooms=world.dooms | {"old"} if link_doom else world.dooms, collector="mark again")
        case "mark again":
            yield world._replace(collector="delete")
        case "delete":
            yield world._replace(links=world.links - {"old"}, collector="done")
