"""How many requests an operation costs, by what they ask of S3.

Law: counted one operation at a time, on a registry of its own behind a counting proxy, three times; the middle one
counts, so that what happens to run beside does not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.bench.flows import push_blob, push_image, tag_manifest
from tests.bench.images import KIB, MIB, image, make_blob
from tests.bench.peers import Peer
from tests.bench.s3.counting import Counting, counting
from tests.bench.s3.exchange import Client
from tests.bench.s3.peers import KINDS, running
from tests.bench.s3.stage import Stage, list_tags
from tests.bench.stage import READ
from tests.s3.servers import S3Server

__all__ = ["Counts", "count"]

Counts = dict[str, dict[str, dict[str, int]]]
"""Requests by operation of the client, registry, and operation of S3."""

_TIMES = 3
_CALM = 2.0
_SIZES = {"1 MiB": MIB, "64 MiB": 64 * MIB, "512 MiB": 512 * MIB}


def count(server: S3Server, folder: Path, stage: Stage) -> Counts:
    """Counts for every registry over what was measured before."""
    counts: Counts = {}
    for kind in KINDS:
        with counting(server.endpoint) as proxy, running(kind, server, folder, endpoint=proxy.endpoint) as peer:
            _await_calm(proxy)
            for name, operation in _operations(stage, redirects=kind.redirects).items():
                counts.setdefault(name, {})[kind.name] = _median(proxy, peer, operation)
    return counts


def _await_calm(proxy: Counting) -> None:
    """Lets every worker end what it does when it starts."""
    before = -1
    while before != (before := proxy.requests.total()):
        time.sleep(_CALM)


def _operations(stage: Stage, *, redirects: bool) -> dict[str, Callable[[Client, int], None]]:
    blob = stage.blobs["64m"]
    reads = {"GET a blob": lambda client, _: _drop(client.get(f"/v2/{READ}/blobs/{blob.digest}"))}
    if redirects:
        return reads
    pushes = {f"push a layer of {name}": _layer(size) for name, size in _SIZES.items()}
    small = [image(4 * KIB) for _ in range(_TIMES)]
    return pushes | {
        "push an image of 4 KiB": lambda client, n: client.run(push_image("bench/push", f"n{n}", small[n])),
        "move a tag": lambda client, n: client.run(tag_manifest("bench/push", "moved", small[n].manifest)),
        "GET a manifest by tag": lambda client, _: _drop(client.get(f"/v2/{READ}/manifests/latest")),
        **reads,
        "list 10,000 tags": lambda client, _: _drop(list_tags(client)),
    }


def _layer(size: int) -> Callable[[Client, int], None]:
    return lambda client, _: client.run(push_blob("bench/push", make_blob(size)))


def _drop(_answer: object) -> None:
    """Was only asked for."""


def _median(proxy: Counting, peer: Peer, operation: Callable[[Client, int], None]) -> dict[str, int]:
    found: list[Counter[str]] = []
    for number in range(_TIMES):
        with Client(peer.address) as client:
            proxy.requests.clear()
            operation(client, number)
            found.append(proxy.requests.copy())
    return dict(sorted(found, key=Counter.total)[_TIMES // 2])
