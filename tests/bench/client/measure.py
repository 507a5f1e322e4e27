"""One run of a command, beside the daemon that works for it: wall time, processor time, memory, bytes written."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import Tree

__all__ = ["Run", "run"]

_SAMPLING = 0.01
_LIMIT = 900.0


@dataclass(frozen=True, slots=True)
class Run:
    """``wall``, ``cpu``: seconds; ``memory``: most bytes resident at once, of all processes; ``written``: bytes."""

    wall: float
    cpu: float
    memory: int
    written: int


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    daemon: int | None,
    written: Callable[[], int],
    log: Path,
) -> Run:
    """Runs the command to its end; what the daemon (a process id) does meanwhile is counted as well.

    Raises:
        RuntimeError: the command failed; the message is what it printed.
    """
    trees = [Tree(daemon)] if daemon else []
    before, cpu = written(), sum(tree.cpu_seconds() for tree in trees)
    with log.open("wb") as sink:
        began = time.monotonic()
        process = subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
        watch = _Watch([*trees, Tree(process.pid)])
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    watch.finish()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}\n{log.read_text(errors='replace')[-2000:]}")
    cpu = sum(tree.cpu_seconds() for tree in trees) - cpu + usage.ru_utime + usage.ru_stime
    return Run(wall, cpu, watch.most, written() - before)


class _Watch(threading.Thread):
    """Looks at the memory of all processes again and again."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        super().__init__(daemon=True)
        self._trees = trees
        self._done = threading.Event()
        self.most = 0

    def run(self) -> None:
        """The sum of what is resident, every 10 ms."""
        while not self._done.wait(_SAMPLING):
            try:
                self.most = max(self.most, sum(sum(tree.resident().values()) for tree in self._trees))
            except (FileNotFoundError, ProcessLookupError, LookupError):
                continue  # a process ended while it was looked at

    def finish(self) -> None:
        """Ends the thread."""
        self._done.set()
        self.join()
