"""A pull as a process of its own: its memory, and how it takes signals and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from moorage.registry.oci import Digest
from moorage.registry.testing import LoopbackRegistry, Slow, Stall

from tests.content import repository
from tests.layers import archive, file
from tests.pulled import image_of, push_image

_MIB = 1024 * 1024
_PULL = """
import sys
from moorage.puller.cli import root
sys.argv = ["moorage", "pull", sys.argv[1], "--store", *sys.argv[2:]]
try:
    root(standalone_mode=False)
finally:
    print(*sys.modules)
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@contextmanager
def _pulling(registry: LoopbackRegistry, store: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A running pull; it does not outlive the block."""
    command = [sys.executable, "-c", _PULL, f"{registry.host}/{repository()}:v1", str(store), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _pull(registry: LoopbackRegistry, store: Path, *options: str) -> tuple[int, set[str]]:
    """The peak of its memory, in bytes, and what it imported."""
    with _pulling(registry, store, *options) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    modules, memory = out.splitlines()[-2:]
    return int(memory) * 1024, set(modules.split())


async def test_memory_does_not_grow_with_the_image(registry: LoopbackRegistry, tmp_path: Path) -> None:
    """Forty layers, and one that alone is larger than the bound would be if it were held."""
    big = archive(file("big", os.urandom(96 * _MIB)), file("zeros", bytes(96 * _MIB)))
    small = [archive(file(f"f{number}", os.urandom(_MIB // 4))) for number in range(40)]
    await push_image(registry, image_of(big, *small, compressed=(big, *small)))
    memory, _ = _pull(registry, tmp_path / "store")
    assert memory < 128 * _MIB


async def test_a_pull_loads_what_it_needs(registry: LoopbackRegistry, tmp_path: Path) -> None:
    """An image that is there already needs no engine, no inflater and no server."""
    await push_image(registry, image_of(archive(file("x"))))
    _, first = _pull(registry, tmp_path / "store")
    _, again = _pull(registry, tmp_path / "store")
    never = {"httpx", "zstandard", "rich", "starlette", "boto3", "yaml", "msgspec", "moorage.registry.web"}
    assert not never & first
    assert not (never | {"moorage.puller.bring", "moorage.puller.unpack.inflate", "isal"}) & again
    assert "moorage.puller.bring" in first


async def test_a_download_loads_nothing_to_unpack_with(registry: LoopbackRegistry, tmp_path: Path) -> None:
    """Blobs alone need no reader of archives."""
    await push_image(registry, image_of(archive(file("x"))))
    _, loaded = _pull(registry, tmp_path / "store", "--no-unpack")
    assert "moorage.puller.bring" in loaded
    assert not {"moorage.puller.unfolding", "moorage.puller.unpack.source", "isal"} & loaded


async def test_processes_share_download_and_tree(registry: LoopbackRegistry, tmp_path: Path) -> None:
    """Parallel jobs of one machine: each blob is fetched once, each layer unpacked once, and all have the image."""
    await push_image(registry, image_of(archive(file("data", os.urandom(100_000)))))
    registry.inject(Slow(delay=0.5, rate=None), path="*/blobs/*", times=None)
    with ExitStack() as stack:
        running = [stack.enter_context(_pulling(registry, tmp_path / "store")) for _ in range(3)]
        said = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert sum("/blobs/" in request.path for request in registry.requests) == 2
    assert "".join(said).count("  unpacked ") == 1


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["INT", "TERM", "KILL"])
async def test_a_stopped_pull_loses_nothing(registry: LoopbackRegistry, tmp_path: Path, sent: signal.Signals) -> None:
    """What has arrived is not fetched again; half a tree is gone at once, or after a kill with the next pull."""
    raw = archive(file("first", b"f" * 1_000_000), file("rest", os.urandom(3_000_000)))
    content = image_of(raw)
    await push_image(registry, content)
    layer, store = content.blobs[1].descriptor, tmp_path / "store"
    registry.inject(Stall(after=2_000_000), path=f"*/blobs/{layer.digest}", times=None)
    part = store / "ingests" / f"sha256-{layer.digest.hex}.part"
    with _pulling(registry, store) as process:
        _wait(lambda: _size(part) >= 1_000_000 and any(store.glob("staging/**/first")))
        process.send_signal(sent)
        began = time.monotonic()
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert time.monotonic() - began < 20  # after 30 s the stall itself would have ended it
    assert [*store.glob("staging/*")] == [] or sent is signal.SIGKILL
    assert [*store.glob("unpacked/sha256-*")] == [*store.glob("unpacked/*.lock")]
    registry.heal()
    registry.forget_requests()
    _pull(registry, store)
    again = [request for request in registry.requests if str(layer.digest) in request.path]
    assert min(int(request.headers["range"].removeprefix("bytes=").partition("-")[0]) for request in again) > 0
    assert (store / "unpacked" / f"sha256-{Digest.of(raw).hex}" / "rest").stat().st_size == 3_000_000
    assert [*store.glob("staging/*")] == []


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _wait(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)
