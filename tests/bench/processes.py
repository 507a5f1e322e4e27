"""What a server costs: processor time and memory of a process and all its descendants, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Tree"]

_TICKS = os.sysconf("SC_CLK_TCK")


class Tree:
    """A running process with its descendants."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu_seconds(self) -> float:
        """User and system time so far, of those that live and those that were waited for."""
        return sum(sum(map(int, _stat(pid)[11:15])) for pid in self._pids()) / _TICKS

    def reset_peaks(self) -> None:
        """Begins a new measurement of ``peaks``."""
        for pid in self._pids():
            # proc(5): 5 sets the peak resident set size to what it is now.
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def resident(self) -> dict[int, int]:
        """Bytes of memory each process holds now."""
        return {pid: _memory(pid, "VmRSS") for pid in self._pids()}

    def peaks(self) -> dict[int, int]:
        """The most bytes of memory each process held since ``reset_peaks``."""
        return {pid: _memory(pid, "VmHWM") for pid in self._pids()}

    def _pids(self) -> Iterator[int]:
        waiting = [self._pid]
        while waiting:
            pid = waiting.pop()
            yield pid
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())


def _stat(pid: int) -> list[str]:
    # The name in parentheses may hold anything; what follows the last one is split by spaces, from field 3 on.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _memory(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"no {name} for process {pid}")
