"""A pull that is interrupted leaves a sound store, keeps what arrived, and the next one goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from moorage.registry.testing import LoopbackRegistry, Slow

_PROGRAM = "import signal; signal.signal(signal.SIGHUP, signal.{}); from moorage.puller.cli import main; main()"
_SIZE = 3_000_000


def start(store: Path, *words: str, hangup: str = "SIG_DFL") -> subprocess.Popen[str]:
    """The program, with a store of its own. ``hangup``: what its caller has made of SIGHUP."""
    environment = {**os.environ, "MOORAGE_STORE": str(store), "DOCKER_CONFIG": str(store / "docker")}
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.format(hangup), *words], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_pull_keeps_what_arrived(
    registry: LoopbackRegistry, tmp_path: Path, number: signal.Signals
) -> None:
    """CI systems send SIGTERM, people Ctrl-C, closing terminals SIGHUP: exit status 1, one line, no staging left; and
    nothing is fetched twice."""
    registry.add_image("team/app:v1", {"random": random.Random(1).randbytes(_SIZE)})
    registry.inject(Slow(rate=1_000_000), method="GET", path="*/blobs/*", times=None)
    reference, store = f"{registry.host}/team/app:v1", tmp_path / "store"
    process = start(store, "pull", reference)
    _wait_until_bytes_arrive(process, store)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.splitlines()[-1]) == (1, "", "moorage: interrupted")
    assert "Traceback" not in err
    assert list((store / "unpacked").glob("*")) == []
    registry.heal()
    again = start(store, "pull", reference, "--json")
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    (layer,) = json.loads(out.splitlines()[-1])["layers"]
    assert layer["source"] == "resumed"
    assert layer["fetched"] < _SIZE


def test_nohup_is_honoured(registry: LoopbackRegistry, tmp_path: Path) -> None:
    """A pull whose caller ignores SIGHUP goes on when its terminal closes."""
    registry.add_image("team/app:v1", {"random": random.Random(1).randbytes(_SIZE)})
    registry.inject(Slow(rate=1_000_000), method="GET", path="*/blobs/*", times=None)
    process = start(tmp_path / "store", "pull", f"{registry.host}/team/app:v1", hangup="SIG_IGN")
    _wait_until_bytes_arrive(process, tmp_path / "store")
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def test_an_interrupt_ends_a_program_that_pulls(registry: LoopbackRegistry, tmp_path: Path) -> None:
    """The client's thread cleans up before the exception leaves the block; nothing hangs."""
    registry.add_image("team/app:v1", {"random": random.Random(1).randbytes(_SIZE)})
    registry.inject(Slow(rate=1_000_000), method="GET", path="*/blobs/*", times=None)
    store = tmp_path / "store"
    program = f"""
from moorage.puller import Client
try:
    with Client({str(store)!r}) as client:
        client.pull("{registry.host}/team/app:v1")
except KeyboardInterrupt:
    import threading
    print("interrupted", threading.active_count())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _wait_until_bytes_arrive(process, store)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("interrupted ")
    assert list((store / "staging").glob("*/*")) == []
    assert _arrived(store) > 0


def _wait_until_bytes_arrive(process: subprocess.Popen[str], store: Path) -> None:
    deadline = time.monotonic() + 60
    while _arrived(store) < _SIZE / 10:
        assert time.monotonic() < deadline, process.poll()
        time.sleep(0.02)


def _arrived(store: Path) -> int:
    """Bytes on the disk of what is on its way."""
    return max((path.stat().st_blocks * 512 for path in (store / "ingests").glob("*.part")), default=0)
