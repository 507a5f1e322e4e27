"""A fetch that is killed again and again comes to its end, and the host sends little twice."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from moorage.registry.oci import Digest

from tests.blobhost import Behaviour, BlobHost

_MIB = 1024 * 1024
_CHUNK = _MIB + _MIB // 4
"""What one connection may have brought that no map names yet: a buffer, and what was on its way to the kernel."""

_FETCH = """
import asyncio, sys
from moorage.puller.fetch.engine import Fetcher
from moorage.puller.hosts import HostConfig
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.remote import RemoteRegistry
from moorage.registry.oci import Descriptor, Digest, RepositoryName
host, root, digest, size = sys.argv[1:]
async def main():
    async with RemoteRegistry.connect(host, hosts=HostConfig.empty()) as registry:
        async with Fetcher(registry, RepositoryName("team/app"), LayoutFiles(root, create=True)) as fetcher:
            await fetcher.fetch(Descriptor("application/octet-stream", Digest.parse(digest), int(size)))
asyncio.run(main())
"""


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
    digest, allowed, kills = Digest.of(host.content), len(host.content), 0
    while True:
        before = host.sent
        command = [sys.executable, "-c", _FETCH, host.host, str(root), str(digest), str(len(host.content))]
        child = subprocess.Popen(command)
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
    assert (root / "blobs" / "sha256" / digest.hex).read_bytes() == host.content
    assert list((root / "ingests").iterdir()) == []
    return allowed, kills


def _unread(port: int) -> int:
    """Bytes that the clients of a port have not taken from the kernel, megabytes where a client gets no processor."""
    lines = map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(int(line[4].partition(":")[2], 16) for line in lines if line[2].endswith(f":{port:04X}"))
