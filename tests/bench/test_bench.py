"""The benchmark's own rules: what it sends is a real push, and what it reports holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.engine import Request, UnexpectedAnswer, drive
from tests.bench.flows import fetch, request_head
from tests.bench.images import KIB, MIB
from tests.bench.memory import burden
from tests.bench.peers import KINDS, Kind, available, running
from tests.bench.stage import Stage

pytestmark = pytest.mark.bench

MOORAGE = KINDS[0]


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.name) for kind in KINDS])
def test_every_registry_gives_back_what_was_pushed(kind: Kind, tmp_path: Path) -> None:
    """The generator's pushes are real: manifest, blobs and tags come back byte for byte."""
    if kind not in available():
        pytest.skip(f"{kind.program} is not installed")
    stage = Stage.make()
    with running(kind, tmp_path) as peer:
        stage.fill(peer.address)
        stage.check(peer.address)


def test_an_unexpected_answer_ends_the_run(tmp_path: Path) -> None:
    """A 404 is never counted as a request served."""
    missing = Request(request_head("GET", "/v2/bench/none/manifests/latest"))
    with running(MOORAGE, tmp_path) as peer, pytest.raises(UnexpectedAnswer, match="404"):
        drive(peer.address, iter([fetch(missing)]), concurrency=1)


def test_busy_server_costs_cpu(tmp_path: Path) -> None:
    """The processor time of a server grows with what it served, and its memory has a peak."""
    ping = Request(request_head("GET", "/v2/"))
    with running(MOORAGE, tmp_path) as peer:
        before = peer.tree.cpu_seconds()
        driven = drive(peer.address, (fetch(ping) for _ in range(4 * KIB)), concurrency=4)
        assert driven.requests == 4 * KIB
        assert 1e-5 < (peer.tree.cpu_seconds() - before) / driven.requests < 1e-2
        assert sum(peer.tree.peaks().values()) > 10 * MIB


@pytest.mark.timeout(600)
def test_fifty_transfers_stay_under_200_mib(tmp_path: Path) -> None:
    """50 uploads and 50 downloads of 256 MiB at once cost one worker less than 200 MiB above idle."""
    with running(MOORAGE, tmp_path) as peer:
        held = burden(peer, transfers=50, size=256 * MIB)
    assert held.uploading < 200 * MIB
    assert held.downloading < 200 * MIB
