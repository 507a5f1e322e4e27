"""A fetch that is killed again and again comes to its end, and the host sends little twice."""

from __future__ import annotations

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
"""What one connection may have brought that no map names yet: a buffer, and what the network still held."""

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
    chance = random.Random(seed)
    content = chance.randbytes(100 * _MIB)
    digest, root, allowed, kills = Digest.of(content), tmp_path / "store", len(content), 0
    with BlobHost(content, lambda asked: Behaviour(rate=6e6)) as host:
        while True:
            before = host.sent
            child = subprocess.Popen([sys.executable, "-c", _FETCH, host.host, root, str(digest), str(len(content))])
            while child.poll() is None and host.sent == before:
                time.sleep(0.005)
            try:
                assert child.wait(chance.uniform(0.05, 2.5)) == 0
                break
            except subprocess.TimeoutExpired:
                allowed += max(1, host.busy) * _CHUNK
                child.kill()
                child.wait()
                kills += 1
                time.sleep(0.05)  # the host's threads learn of it
        assert kills >= 3
        assert host.sent <= allowed
    assert (root / "blobs" / "sha256" / digest.hex).read_bytes() == content
    assert list((root / "ingests").iterdir()) == []
