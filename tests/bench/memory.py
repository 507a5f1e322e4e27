"""Memory under many big transfers at once: what one worker holds above what it held idle.

Law: every transfer is under way at the same time, and the blobs differ, so that nothing is served from what another
transfer has in hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.engine import Driven, Flow, Request, drive
from tests.bench.flows import fetch, push_blob, push_image, request_head
from tests.bench.images import KIB, Blob, image, make_blob
from tests.bench.peers import Peer

__all__ = ["Burdened", "burden"]

_REPOSITORY = "bench/memory"


@dataclass(frozen=True, slots=True)
class Burdened:
    """``uploading`` and ``downloading``: the peak of the process that grew most, above idle, in bytes.

    ``idle``: bytes it held before. The rates are in bytes per second.
    """

    idle: int
    uploading: int
    downloading: int
    upload_rate: float
    download_rate: float


def burden(peer: Peer, *, transfers: int, size: int) -> Burdened:
    """Uploads ``transfers`` blobs of ``size`` bytes, all at once, and then downloads them, all at once.

    Raises:
        UnexpectedAnswer: one of them failed.
    """
    # One small push first: what the first request loads and caches belongs to the idle server.
    drive(peer.address, iter([push_image(_REPOSITORY, "warm", image(4 * KIB))]), concurrency=1)
    idle = peer.tree.resident()
    blobs = [make_blob(size) for _ in range(transfers)]
    uploading, up = _grown(peer, idle, lambda: _run(peer, [push_blob(_REPOSITORY, blob) for blob in blobs]))
    downloading, down = _grown(peer, idle, lambda: _run(peer, [_fetch(blob) for blob in blobs]))
    return Burdened(max(idle.values()), uploading, downloading, up.sent / up.seconds, down.received / down.seconds)


def _run(peer: Peer, flows: list[Flow]) -> Driven:
    return drive(peer.address, iter(flows), concurrency=len(flows))


def _fetch(blob: Blob) -> Flow:
    return fetch(Request(request_head("GET", f"/v2/{_REPOSITORY}/blobs/{blob.digest}")))


def _grown(peer: Peer, idle: dict[int, int], run: Callable[[], Driven]) -> tuple[int, Driven]:
    peer.tree.reset_peaks()
    driven = run()
    return max(peak - idle.get(pid, 0) for pid, peak in peer.tree.peaks().items()), driven
