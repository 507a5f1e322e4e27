"""Foreign programs: found on PATH, run with a home of their own, loud when they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

__all__ = ["Program", "daemon", "find"]


def find(name: str, *preferred: str) -> str:
    """The path of a program; skips the test where there is none."""
    for candidate in (*preferred, name):
        if path := shutil.which(candidate):
            return path
    pytest.skip(f"{name} is not installed")


@dataclass(frozen=True, slots=True)
class Program:
    """A program with the arguments that every call of it needs, and its environment. ``patience``: seconds."""

    command: tuple[str, ...]
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    patience: float = 100

    def __call__(self, *arguments: str | Path, stdin: bytes | None = None, cwd: Path | None = None) -> str:
        """Runs it and returns what it printed, standard error last. It must succeed."""
        done = self.attempt(*arguments, stdin=stdin, cwd=cwd)
        assert done.returncode == 0, f"{done.args}\n{done.stdout.decode()}{done.stderr.decode()}"
        return (done.stdout + done.stderr).decode()

    def stdout(self, *arguments: str | Path, cwd: Path | None = None) -> bytes:
        """Runs it and returns the bytes of its standard output. It must succeed."""
        done = self.attempt(*arguments, cwd=cwd)
        assert done.returncode == 0, f"{done.args}\n{done.stderr.decode()}"
        return done.stdout

    def attempt(
        self, *arguments: str | Path, stdin: bytes | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs it, whatever comes of it."""
        self.home.mkdir(exist_ok=True, parents=True)
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8", **self.environment}
        return subprocess.run(
            [*self.command, *map(str, arguments)],
            env=environment, input=stdin, cwd=cwd or self.home, capture_output=True, timeout=self.patience,
        )  # fmt: skip


@contextmanager
def daemon(
    command: list[str | Path], log: Path, ready: Callable[[], bool], *, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a foreign server until the block ends; ``ready`` says when it may begin.

    Args:
        environment: all of its variables; None: ours.

    Raises:
        AssertionError: it was not ready within 60 s; the message is its log.
    """
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*map(str, command)], stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, env=environment
        )
    try:
        deadline = time.monotonic() + 60
        while not ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
