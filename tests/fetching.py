"""What tests of fetching share: a blob, a fetcher of a host's blobs, and a process that fetches and can be killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

import pytest
from moorage.puller.events import Event, ignore
from moorage.puller.fetch.engine import Fetcher
from moorage.puller.fetch.host import Host
from moorage.puller.hosts import HostConfig
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.messages import RetryPolicy, Timeouts
from moorage.puller.remote import RemoteRegistry
from moorage.registry.oci import BlobUnknown, Descriptor, Digest, RepositoryName
from moorage.registry.oci.media_types import OCTET_STREAM

from tests.blobhost import BlobHost

__all__ = ["CONTENT", "FAST", "MIB", "blob_of", "fetching", "files", "left", "read_all", "start_fetch", "stored"]

MIB = 1024 * 1024
FAST = RetryPolicy(attempts=4, first_delay=0.01, longest_delay=2.0)
CONTENT = random.Random(4).randbytes(4 * MIB)
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


@cache
def blob_of(content: bytes = CONTENT) -> Descriptor:
    return Descriptor(OCTET_STREAM, Digest.of(content), len(content))


@pytest.fixture
def files(tmp_path: Path) -> LayoutFiles:
    return LayoutFiles(str(tmp_path / "store"), create=True)


@asynccontextmanager
async def fetching(
    host: BlobHost,
    files: LayoutFiles,
    *,
    retry: RetryPolicy = FAST,
    timeouts: Timeouts | None = None,
    events: list[Event] | None = None,
    state: Host | None = None,
) -> AsyncIterator[Fetcher]:
    """A fetcher of the host's blobs."""
    hosts = HostConfig.empty()
    async with (
        RemoteRegistry.connect(host.host, hosts=hosts, timeouts=timeouts) as registry,
        Fetcher(
            registry,
            RepositoryName("team/app"),
            files,
            retry=retry,
            host=state,
            on_event=ignore if events is None else events.append,
        ) as fetcher,
    ):
        yield fetcher


def stored(files: LayoutFiles, blob: Descriptor) -> bytes | None:
    try:
        with files.open_blob(blob.digest) as file:
            return file.read()
    except BlobUnknown:
        return None


def left(files: LayoutFiles) -> list[str]:
    return sorted(name.rpartition(".")[2] for name in os.listdir(os.path.join(files.root, "ingests")))


def read_all(opened: Callable[[], BinaryIO]) -> bytes:
    """Everything that a reader gives."""
    with opened() as file:
        return b"".join(iter(lambda: file.read(100_000), b""))


def start_fetch(host: BlobHost, root: str, blob: Descriptor) -> subprocess.Popen[bytes]:
    """A process that fetches the host's blob into the layout at ``root``."""
    return subprocess.Popen([sys.executable, "-c", _FETCH, host.host, root, str(blob.digest), str(blob.size)])
