"""The file systems that images are pulled to: ext4 on a disk image of its own, and tmpfs (both need root).

A file system of its own makes every run cold, and says how many bytes reached its device.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["VOLUMES", "Volume", "mounted"]

_SIZE = 24 * 2**30
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Volume:
    """A mounted file system. ``written``: bytes that its device took so far; nothing where there is no device."""

    name: str
    path: Path
    written: Callable[[], int]


@contextmanager
def mounted(name: str, folder: Path) -> Iterator[Volume]:
    """The volume called ``name`` (of ``VOLUMES``), empty, mounted below ``folder`` until the block ends."""
    place = folder / name
    place.mkdir()
    device = VOLUMES[name](place, folder)
    try:
        yield Volume(name, place, lambda: _written(place, device))
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        place.rmdir()


def _mount_tmpfs(place: Path, _: Path) -> str:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=755", "tmpfs", place], check=True)
    return ""


def _mount_ext4(place: Path, folder: Path) -> str:
    image = folder / "ext4.img"
    with image.open("wb") as file:
        file.truncate(_SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    image.unlink()  # the loop device keeps it until it is unmounted
    return os.path.realpath(f"/sys/dev/block/{os.major(place.stat().st_dev)}:{os.minor(place.stat().st_dev)}")


def _written(place: Path, device: str) -> int:
    if not device:
        return 0
    subprocess.run(["sync", "--file-system", place], check=True)
    return int(Path(device, "stat").read_text().split()[6]) * _SECTOR  # kernel's block/stat: sectors written


VOLUMES: dict[str, Callable[[Path, Path], str]] = {"ext4": _mount_ext4, "tmpfs": _mount_tmpfs}
"""How each is mounted; gives the device's folder in /sys, or nothing."""
