"""A fetch that is killed again and again comes to its end, and the host sends little twice."""

from __future__ import annotations

import itertools
import random
import subprocess
import time
from pathlib import Path

import pytest
from moorage.puller.layout_files import LayoutFiles

from tests.blobhost import Behaviour, BlobHost
from tests.fetching import blob_of, start_fetch, stored

_MIB = 1024 * 1024
_CHUNK = _MIB + _MIB // 4
"""What one connection may have brought that no map names yet: a buffer, and what was on its way to the kernel."""


@pytest.mark.crash
@pytest.mark.parametrize("seed", range(4))
def test_kills_cost_a_chunk_per_connection(tmp_path: Path, seed: int) -> None:
    """``kill -9`` at random moments of one large blob, over one connection and over several, until it is there."""
    chance, allowed, kills = random.Random(seed), 0, 0
    content = chance.randbytes(100 * _MIB)
    with BlobHost(content, lambda asked: Behaviour(rate=6e6)) as host:
        for store in map(str, itertools.count()):
            more, died = _fetch_and_kill(host, tmp_path / store, chance)
            allowed, kills = allowed + more, kills + died
            if kills >= 3:  # a machine may be so slow to kill that a fetch gets through
                break
        assert host.sent <= allowed


def _fetch_and_kill(host: BlobHost, root: Path, chance: random.Random) -> tuple[int, int]:
    """Fetches the blob into a new store; how many bytes the host may have sent for it, and how often we killed."""
    allowed, kills = len(host.content), 0
    while True:
        before = host.sent
        child = start_fetch(host, str(root), blob_of(host.content))
        while child.poll() is None and host.sent == before:
            time.sleep(0.005)
        try:
            assert child.wait(chance.uniform(0.05, 2.5)) == 0
            break
        except subprocess.TimeoutExpired:
            allowed += max(1, host.busy) * _CHUNK + _unread(int(host.host.rpartition(":")[2]))
            child.kill()
            child.wait()
            kills += 1
            time.sleep(0.05)  # the host's threads learn of it
    assert stored(LayoutFiles(str(root)), blob_of(host.content)) == host.content
    assert list((root / "ingests").iterdir()) == []
    return allowed, kills


def _unread(port: int) -> int:
    """Bytes that the clients of a port have not taken from the kernel, megabytes where a client gets no processor."""
    lines = map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(int(line[4].partition(":")[2], 16) for line in lines if line[2].endswith(f":{port:04X}"))
