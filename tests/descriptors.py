"""What this process has open, as the kernel says."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["descriptors_below"]


def descriptors_below(root: Path) -> list[str]:
    """The paths of open files at and below ``root``; what other tests have left behind comes and goes elsewhere."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that listed them
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(path for path in found if Path(path).is_relative_to(root))
