"""On a terminal: the display draws while it fetches, leaves the last state standing, and gives the cursor back."""

from __future__ import annotations

import os
import pty
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from moorage.registry.testing import LoopbackRegistry, Slow

_MAIN = [sys.executable, "-c", "from moorage.puller.cli import main; main()"]
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Runs a program with a terminal for stderr; ``drawn`` is all that it wrote there."""

    def __init__(self, *words: str, environment: dict[str, str]) -> None:
        ours, theirs = pty.openpty()
        self._parts: list[bytes] = []
        reader = threading.Thread(target=self._read, args=(ours,))
        self.done = subprocess.Popen(
            [*_MAIN, *words], env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=theirs, text=True,
        )  # fmt: skip
        os.close(theirs)
        reader.start()
        self.out, _ = self.done.communicate(timeout=60)
        reader.join()
        os.close(ours)

    @property
    def drawn(self) -> str:
        """Text and control sequences."""
        return b"".join(self._parts).decode()

    def _read(self, terminal: int) -> None:
        try:
            while data := os.read(terminal, 65536):
                self._parts.append(data)
        except OSError:  # EIO: the other side is closed
            return


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_a_pull_on_a_terminal(registry: LoopbackRegistry, tmp_path: Path, term: str) -> None:
    """Bars where the terminal can, plain lines where it cannot; the result alone is on stdout."""
    digest = registry.add_image("team/app:v1", {"random": random.Random(1).randbytes(300_000)}, {"b": "b"})
    registry.inject(Slow(rate=600_000), method="GET", path="*/blobs/*", times=None)
    reference = f"{registry.host}/team/app:v1"
    environment = {"MOORAGE_STORE": str(tmp_path / "store"), "TERM": term, "DOCKER_CONFIG": str(tmp_path)}
    run = Terminal("pull", reference, environment=environment | {"COLUMNS": "90", "LINES": "20"})
    assert run.done.returncode == 0, run.drawn
    assert run.out == f"{registry.host}/team/app@{digest}\n"
    text = _CONTROL.sub("", run.drawn).replace("\r", "")
    assert re.search(r"\n300\.\d kB in \d+\.\d s \(.* kB/s\): network ", text), text
    if term == "dumb":
        assert "\x1b" not in run.drawn
        return
    assert "fetching" in text
    assert text.count("✓ ") >= 2
    assert run.drawn.rindex("\x1b[?25h") > run.drawn.rindex("\x1b[?25l")
    assert max(map(len, re.split(r"[\r\n]+", _CONTROL.sub("", run.drawn)))) <= 90


def test_what_is_there_already_draws_nothing(registry: LoopbackRegistry, tmp_path: Path) -> None:
    """A warm pull says one line, and does not load what draws."""
    registry.add_image("team/app:v1", {"a": "a"})
    environment = {"MOORAGE_STORE": str(tmp_path / "store"), "TERM": "xterm", "DOCKER_CONFIG": str(tmp_path)}
    for _ in range(2):
        run = Terminal("pull", f"{registry.host}/team/app:v1", environment=environment)
    assert "\x1b" not in run.drawn
    assert re.fullmatch(r"0 B in \d+\.\d s(: .*)?\r\n", run.drawn)
