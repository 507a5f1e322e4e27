"""``deploy/moorage.service`` as systemd reads it: its settings, and the system calls that its filter lets through."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Final

from tests.deploy.stack import DEPLOY
from tests.interop.programs import find

__all__ = ["UNIT", "allowed_calls", "environment", "settings"]

UNIT: Final = DEPLOY / "moorage.service"


def settings(name: str) -> list[str]:
    """The values of every line that sets ``name``, in order."""
    lines = (line.partition("=") for line in UNIT.read_text().splitlines() if not line.startswith("#"))
    return [value for key, _, value in lines if key == name]


def environment() -> dict[str, str]:
    """The variables that the unit sets."""
    words = " ".join(settings("Environment")).split()
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def allowed_calls() -> list[str]:
    """The system calls that the unit's filter leaves: its lines, in order, add some, or with ``~`` take some away."""
    allowed: set[str] = set()
    for line in settings("SystemCallFilter"):
        calls = {call for group in line.lstrip("~").split() for call in _expand(group)}
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return sorted(allowed)


def _expand(group: str) -> Iterator[str]:
    if not group.startswith("@"):
        yield group
        return
    command = [find("systemd-analyze"), "syscall-filter", group]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    for line in printed.splitlines()[1:]:
        name = line.strip()
        if name.startswith("@"):
            yield from _expand(name)
        elif name and not name.startswith("#"):
            yield name
