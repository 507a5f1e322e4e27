"""What is measured: each case runs once against one registry and returns a sample."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bench.engine import Address, Driven, Flow, Request, drive
from tests.bench.flows import fetch, push_image, request_head
from tests.bench.images import KIB, MIB, Image, image
from tests.bench.peers import Peer
from tests.bench.stage import READ, TAGGED, TAGS, Stage
from tests.bench.wrk import hammer

__all__ = ["CASES", "Case", "Counted", "Sample", "measure"]

_REPOSITORIES = 16
"""Pushes go round these, as those of several CI jobs do: zot's pushes wait for each other within a repository."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What the client side of a run saw. Times in seconds; ``moved``: bytes of bodies, both ways."""

    requests: int
    seconds: float
    moved: int
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one case. ``cpu``: seconds of the server's processes; ``peak``: bytes, all its processes together."""

    rate: float
    moved_per_second: float
    p50: float
    p99: float
    cpu_per_request: float
    peak: int


Run = Callable[[Address], Counted]


@dataclass(frozen=True, slots=True)
class Case:
    """A named measurement. ``prepare`` makes what one round of all registries needs, outside the clock.

    ``bulk``: megabytes per second say more than requests.
    """

    name: str
    prepare: Callable[[Stage, float], Run]
    bulk: bool = False


def measure(peer: Peer, run: Run) -> Sample:
    """Runs a prepared case against a registry, after what other runs left in the page cache has been written out."""
    os.sync()
    peer.tree.reset_peaks()
    before = peer.tree.cpu_seconds()
    counted = run(peer.address)
    cpu = peer.tree.cpu_seconds() - before
    return Sample(
        counted.requests / counted.seconds,
        counted.moved / counted.seconds,
        counted.p50,
        counted.p99,
        cpu / counted.requests,
        sum(peer.tree.peaks().values()),
    )


def _by_wrk(target: Callable[[Stage], str]) -> Callable[[Stage, float], Run]:
    def prepare(stage: Stage, seconds: float) -> Run:
        path = target(stage)

        def run(address: Address) -> Counted:
            result = hammer(address, path, seconds=seconds)
            return Counted(result.requests, result.seconds, result.received, result.p50, result.p99)

        return run

    return prepare


def _by_engine(method: str, blob: str, *, concurrency: int) -> Callable[[Stage, float], Run]:
    def prepare(stage: Stage, seconds: float) -> Run:
        head = request_head(method, f"/v2/{READ}/blobs/{stage.blobs[blob].digest}")
        request = Request(head, bodiless=method == "HEAD")

        def run(address: Address) -> Counted:
            flows: Iterator[Flow] = (fetch(request) for _ in itertools.count())
            return _count(drive(address, flows, concurrency=concurrency, seconds=seconds))

        return run

    return prepare


def _push(size: int, *, concurrency: int, most: int) -> Callable[[Stage, float], Run]:
    def prepare(_stage: Stage, seconds: float) -> Run:
        # A short run pushes fewer; never fewer than give every connection one.
        images = [image(size) for _ in range(max(concurrency, round(most * min(1.0, seconds / 3))))]

        def run(address: Address) -> Counted:
            return _count(drive(address, _pushes(images), concurrency=concurrency))

        return run

    return prepare


def _pushes(images: list[Image]) -> Iterator[Flow]:
    for number, pushed in enumerate(images):
        tag = pushed.config.digest.removeprefix("sha256:")[:32]
        yield push_image(f"bench/push-{number % _REPOSITORIES:02}", tag, pushed)


def _count(driven: Driven) -> Counted:
    times = driven.latencies
    p99 = statistics.quantiles(times, n=100)[98] if len(times) > 1 else times[0]
    moved = driven.sent + driven.received
    return Counted(len(times), driven.seconds, moved, statistics.median(times), min(p99, max(times)))


CASES = (
    Case("manifest", _by_wrk(lambda _: f"/v2/{READ}/manifests/latest")),
    Case("head", _by_engine("HEAD", "4k", concurrency=16)),
    Case("blob4k", _by_wrk(lambda stage: f"/v2/{READ}/blobs/{stage.blobs['4k'].digest}")),
    Case("blob10m", _by_engine("GET", "10m", concurrency=8), bulk=True),
    Case("blob256m", _by_engine("GET", "256m", concurrency=4), bulk=True),
    Case("tags1000", _by_wrk(lambda _: f"/v2/{TAGGED}/tags/list?n={TAGS}")),
    Case("push4k-c1", _push(4 * KIB, concurrency=1, most=60)),
    Case("push4k-c16", _push(4 * KIB, concurrency=16, most=320)),
    Case("push1m-c1", _push(1 * MIB, concurrency=1, most=60)),
    Case("push1m-c16", _push(1 * MIB, concurrency=16, most=160)),
    Case("push64m-c1", _push(64 * MIB, concurrency=1, most=4), bulk=True),
    Case("push64m-c16", _push(64 * MIB, concurrency=16, most=16), bulk=True),
)
"""In the order in which they run. A push counts as one request: HEAD, POST, PATCH, PUT for a layer and for a config,
and the manifest."""
