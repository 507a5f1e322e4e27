"""The registries that stand side by side: each a real process on loopback over a root of its own on one file system.

Law: everyone gets the same chance. No authorisation, no access log, deletes enabled, nothing else configured; what
a registry does by default (Moorage syncs to disk, zot does not) it does here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.engine import Address
from tests.bench.processes import Tree

__all__ = ["KINDS", "Kind", "Peer", "available", "running", "start"]

_START = 30.0
"""Seconds in which a registry has to answer ``GET /v2/``."""

_STOP = 15.0
"""Seconds from SIGTERM to SIGKILL."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A registry that can be started: its name here, its program, and its command line for a root and a port."""

    name: str
    program: str
    command: Callable[[str, Path, int], list[str]]


@dataclass(frozen=True, slots=True)
class Peer:
    """A registry that runs."""

    name: str
    address: Address
    tree: Tree


def _moorage(workers: int) -> Callable[[str, Path, int], list[str]]:
    def command(program: str, root: Path, port: int) -> list[str]:
        listen = ["--listen", f"127.0.0.1:{port}", "--workers", str(workers)]
        return [program, "serve", "--root", str(root / "data"), *listen, "--no-access-log", "--drain-delay", "0"]

    return command


def _distribution(program: str, root: Path, port: int) -> list[str]:
    # JSON is YAML, so no writer of YAML is needed.
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (root / "config.yml").write_text(json.dumps(config))
    return [program, "serve", str(root / "config.yml")]


def _zot(program: str, root: Path, port: int) -> list[str]:
    config = {
        "distSpecVersion": "1.1.1",
        "storage": {"rootDirectory": str(root / "data"), "gc": False},
        "http": {"address": "127.0.0.1", "port": str(port)},
        "log": {"level": "error", "output": "/dev/null"},
    }
    (root / "config.json").write_text(json.dumps(config))
    return [program, "serve", str(root / "config.json")]


KINDS = (
    Kind("moorage", "moorage", _moorage(1)),
    Kind("moorage-w2", "moorage", _moorage(2)),
    Kind("distribution", "registry", _distribution),
    Kind("docker-registry", "docker-registry", _distribution),
    Kind("zot", "zot", _zot),
)
"""Moorage with one worker and with two; distribution 3, Debian's distribution 2.8, and zot."""


def available() -> list[Kind]:
    """The kinds whose program is installed."""
    return [kind for kind in KINDS if _program(kind) is not None]


def _program(kind: Kind) -> str | None:
    beside = Path(sys.executable).with_name(kind.program)
    return str(beside) if beside.exists() else shutil.which(kind.program)


@contextmanager
def running(kind: Kind, folder: Path) -> Iterator[Peer]:
    """Starts a registry over ``folder`` (its own, made here) and stops it in the end.

    Raises:
        FileNotFoundError: its program is not installed.
        TimeoutError: it did not answer in time; the message holds what it printed.
    """
    program = _program(kind)
    if program is None:
        raise FileNotFoundError(kind.program)
    root = folder / kind.name
    root.mkdir()
    with start(kind.name, root, lambda port: kind.command(program, root, port)) as peer:
        yield peer


@contextmanager
def start(
    name: str, place: Path, command: Callable[[int], list[str]], *, environment: Mapping[str, str] | None = None
) -> Iterator[Peer]:
    """Starts a registry on a free port and stops it in the end.

    Args:
        place: takes what it prints.
        command: its command line for a port.
        environment: variables beside those of this process.

    Raises:
        TimeoutError: it did not answer in time; the message holds what it printed.
    """
    port = _free_port()
    with (place / "output").open("wb") as output:
        process = subprocess.Popen(
            command(port), stdout=output, stderr=output, env={**os.environ, **(environment or {})}
        )
    try:
        _await_answer(process, port, place / "output")
        yield Peer(name, ("127.0.0.1", port), Tree(process.pid))
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _await_answer(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5):
                return
        except OSError:  # URLError is one, and so is a time-out
            time.sleep(0.05)
    raise TimeoutError(f"no answer from {process.args!r}: {output.read_text(errors='replace')[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
