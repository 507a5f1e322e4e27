"""File systems to be cut from power: loop-mounted images that forget what was not synced.

Law: a cut is the file system's own emergency stop (what ``xfs_io -x -c shutdown`` does): nothing more reaches the
image, not even the log, so after the next mount there is what a power cut would have left.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = ["SYSTEMS", "SmallDisk", "Volume"]

SYSTEMS: Final = {
    "ext4": (96, ("mkfs.ext4", "-q", "-F"), "rw"),
    "xfs": (320, ("mkfs.xfs", "-q", "-f"), "nouuid"),  # the one that was stopped may still be held somewhere
}
"""File system: size of its image in MiB (sparse), the command that makes it, and options to mount it with."""

_SHUTDOWN: Final = 0x8004587D  # _IOR('X', 125, __u32): XFS_IOC_GOINGDOWN, which ext4 takes too
_FLUSH_ALL: Final = struct.pack("I", 0)
_NO_LOG_FLUSH: Final = struct.pack("I", 2)


class Volume:
    """A file system in an image. Use it as a context manager; ``root`` is a directory in it, while it is mounted."""

    def __init__(self, kind: str) -> None:
        self._size, self._make, self._options = SYSTEMS[kind]
        memory = "/dev/shm"  # noqa: S108  # a device whose flushes cost nothing; private by mkdtemp
        self._folder = tempfile.TemporaryDirectory(
            prefix="moorage-crash-", dir=memory if os.path.isdir(memory) else None
        )
        self._mounted, self._device = False, ""
        self._image = f"{self._folder.name}/image"
        self._mount_point = f"{self._folder.name}/mnt"
        self.root = Path(self._mount_point) / "root"

    def __enter__(self) -> Self:
        with open(self._image, "wb") as image:
            image.truncate(self._size << 20)
        os.mkdir(self._mount_point)
        subprocess.run([*self._make, self._image], check=True, capture_output=True)
        self.mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mounted:
            self.unmount()
        self._folder.cleanup()

    def mount(self) -> None:
        """Mounts the image, which replays the log of the file system.

        By a loop device of its own each time: ``mount -o loop`` would take the last one again while a namespace made
        meanwhile (a container's) holds it, and with it the file system that was stopped.
        """
        made = subprocess.run(["losetup", "--find", "--show", self._image], check=True, capture_output=True, text=True)
        self._device = made.stdout.strip()
        subprocess.run(["mount", "-o", self._options, self._device, self._mount_point], check=True)
        self._mounted = True

    def unmount(self) -> None:
        """Unmounts the image; nobody may have a file open in it."""
        subprocess.run(["umount", self._mount_point], check=True)
        subprocess.run(["losetup", "--detach", self._device], check=True)
        self._mounted = False

    def cut(self) -> None:
        """Stops the file system now; every write and sync from here on fails."""
        self._stop(_NO_LOG_FLUSH)

    def fail(self) -> None:
        """Stops the file system once all that was written is safe; every write and sync from here on fails."""
        self._stop(_FLUSH_ALL)

    def _stop(self, how: bytes) -> None:
        fd = os.open(self._mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, how)
        finally:
            os.close(fd)


class SmallDisk:
    """A file system with little room, mounted at ``path`` while the block lasts.

    Args:
        options: what ``mount -o`` takes for a tmpfs: ``size=…`` for bytes, ``nr_inodes=…`` for files.
    """

    def __init__(self, path: Path, options: str) -> None:
        self.path, self._options = path, options

    def __enter__(self) -> Self:
        self.path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", self._options, "tmpfs", self.path], check=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", self.path], check=True)
