"""What is measured: each case is one operation of a client, which is repeated a few times in each turn."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bench.flows import push_blob, push_image
from tests.bench.images import KIB, MIB, image, make_blob
from tests.bench.peers import Peer
from tests.bench.s3.exchange import Client
from tests.bench.s3.stage import TAGS, Stage, list_tags
from tests.bench.stage import READ

__all__ = ["CASES", "Case", "Sample", "measure"]

Operation = Callable[[Client], None]


@dataclass(frozen=True, slots=True)
class Case:
    """A named operation. ``prepare`` makes, outside the clock, that which the next one needs.

    ``often``: how many in one turn; ``moved``: bytes of body; ``redirected``: whether redirects make a difference.
    """

    name: str
    prepare: Callable[[Stage], Operation]
    often: int
    moved: int = 0
    redirected: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn: the median time of an operation, and the processor time of the registry for one. Seconds."""

    seconds: float
    cpu: float


def measure(peer: Peer, case: Case, stage: Stage) -> Sample:
    """One turn of a case against a registry."""
    operations = [case.prepare(stage) for _ in range(case.often)]
    os.sync()  # what other turns left in the page cache
    with Client(peer.address) as client:
        before = peer.tree.cpu_seconds()
        times = list(_timed(client, operations))
        cpu = peer.tree.cpu_seconds() - before
    return Sample(statistics.median(times), cpu / case.often)


def _timed(client: Client, operations: list[Operation]) -> Iterator[float]:
    for operation in operations:
        began = time.perf_counter()
        operation(client)
        yield time.perf_counter() - began


def _push_layer(size: int) -> Callable[[Stage], Operation]:
    def prepare(_stage: Stage) -> Operation:
        blob = make_blob(size)
        return lambda client: client.run(push_blob("bench/push", blob))

    return prepare


def _push_image(_stage: Stage) -> Operation:
    pushed = image(4 * KIB)
    return lambda client: client.run(push_image("bench/push", pushed.config.digest[7:39], pushed))


def _get_manifest(_stage: Stage) -> Operation:
    return lambda client: _expect(client.get(f"/v2/{READ}/manifests/latest").size > 0)


def _get_blob(name: str) -> Callable[[Stage], Operation]:
    def prepare(stage: Stage) -> Operation:
        blob = stage.blobs[name]
        return lambda client: _expect(client.get(f"/v2/{READ}/blobs/{blob.digest}").size == blob.size)

    return prepare


def _list_tags(_stage: Stage) -> Operation:
    return lambda client: _expect(len(list_tags(client)) == TAGS)


def _expect(holds: bool) -> None:  # an assertion that is an expression
    if not holds:
        raise ValueError("the answer is not what was pushed")


CASES = (
    Case("push a layer of 1 MiB", _push_layer(1 * MIB), 8, 1 * MIB),
    Case("push a layer of 64 MiB", _push_layer(64 * MIB), 1, 64 * MIB),
    Case("push a layer of 512 MiB", _push_layer(512 * MIB), 1, 512 * MIB),
    Case("push an image of 4 KiB", _push_image, 6),
    Case("GET a manifest by tag", _get_manifest, 100),
    Case("GET a blob of 4 KiB", _get_blob("4k"), 60, 4 * KIB, redirected=True),
    Case("GET a blob of 1 MiB", _get_blob("1m"), 40, 1 * MIB, redirected=True),
    Case("GET a blob of 64 MiB", _get_blob("64m"), 4, 64 * MIB, redirected=True),
    Case("list 10,000 tags", _list_tags, 3),
)
"""In the order in which they run. A layer: HEAD, POST, PATCH, PUT; an image: that twice, and the manifest by tag."""
