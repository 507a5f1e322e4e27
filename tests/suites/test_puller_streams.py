"""The program with the streams that callers give it: closed, full, left by their reader, or of another encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from moorage.registry.testing import LoopbackRegistry

_MAIN = [sys.executable, "-c", "from moorage.puller.cli import main; main()"]
_NAME = "team/app:v1"


@pytest.fixture(scope="module")
def registry() -> Iterator[LoopbackRegistry]:
    """A registry with one image."""
    with LoopbackRegistry() as registry:
        registry.add_image(_NAME, {"motd": "hello"})
        yield registry


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A store of one's own, and stdout buffered as it is for users."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**inherited, "MOORAGE_STORE": str(tmp_path / "store"), "DOCKER_CONFIG": str(tmp_path)}


def _run(words: Sequence[str], environment: dict[str, str], **streams: Any) -> subprocess.CompletedProcess[str]:
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run([*_MAIN, *words], env=environment, text=True, check=False, timeout=60, **streams)


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("tags", "HOST/team/app"), ("pull", f"HOST/{_NAME}")])
def test_a_full_stdout_is_one_line(
    registry: LoopbackRegistry, environment: dict[str, str], words: tuple[str, ...]
) -> None:
    """Also where what is printed waits in a buffer until the end."""
    with open("/dev/full", "w") as full:
        done = _run([word.replace("HOST", registry.host) for word in words], environment, stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "moorage: stdout: [Errno 28] No space left on device"


@pytest.mark.parametrize("extra", [(), ("--json",)], ids=["a line", "json"])
def test_a_reader_who_left_needs_no_message(
    registry: LoopbackRegistry, environment: dict[str, str], extra: tuple[str, ...]
) -> None:
    """``| head`` has seen enough."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = _run(["pull", f"{registry.host}/{_NAME}", *extra], environment, stdout=writing)
    finally:
        os.close(writing)
    assert done.returncode == 1
    assert "Broken pipe" not in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_streams_change_nothing(registry: LoopbackRegistry, environment: dict[str, str], tmp_path: Path) -> None:
    """As daemons and ``2>&-`` start programs: the pull is done, and nothing is written into its files by mistake."""
    program = "import os, sys; [os.close(fd) for fd in (0, 1, 2)]; os.execv(sys.executable, sys.argv[1:])"
    words = [
        sys.executable,
        "-c",
        program,
        *_MAIN,
        "pull",
        f"{registry.host}/{_NAME}",
        "--unpack",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(words, env=environment, check=False, timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "out" / "motd").read_text() == "hello"


@pytest.mark.parametrize("target", ["", "out"], ids=["in the store", "a tree"])
def test_a_failing_disk_is_named(environment: dict[str, str], tmp_path: Path, target: str) -> None:
    """Here, files may not grow beyond 200 kB: the layer, compressed, is smaller."""
    limits = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); "
    program = [sys.executable, "-c", limits + _MAIN[2]]
    with LoopbackRegistry() as registry:
        registry.add_image(_NAME, {"big": b"x" * 1_000_000})
        words = ["pull", f"{registry.host}/{_NAME}", *(["--unpack", str(tmp_path / target)] if target else [])]
        done = subprocess.run([*program, *words], env=environment, capture_output=True, text=True, timeout=60)
    place = tmp_path / (target or "store")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"moorage: [Errno 27] File too large: '{place}'"


def test_what_the_encoding_lacks_is_escaped(registry: LoopbackRegistry, environment: dict[str, str]) -> None:
    """The bars of ``history`` in a locale without them."""
    _run(["pull", f"{registry.host}/{_NAME}"], environment)
    plain = {**environment, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = _run(["history", f"{registry.host}/{_NAME}"], plain)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2588" in done.stdout
