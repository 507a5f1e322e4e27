"""What was published without waiting for the disk, and in which life of the machine.

Law: a pull does not wait until bulk data is on the disk. A kill cannot hurt it, the kernel writes it all the same; a
power cut can, so before anything is published unsynced, a note that it will be is on the disk:

    <root>/unsynced/<boot id of the kernel>/blob-<alg>-<hex>
    <root>/unsynced/<boot id of the kernel>/tree-<alg>-<hex>       (by diffID)

A note of another boot makes its subject doubtful: a blob is hashed again before it is trusted, a tree is dropped and
made anew from its blob. ``settle`` brings everything to the disk and forgets the notes. Where the kernel tells no boot
id, every process counts as a boot of its own: slower, and never wrong.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from functools import cache

from moorage.puller.staging import is_writable, sync_directory
from moorage.registry.oci import Digest

__all__ = ["Unsynced", "boot_id"]

_FOLDER = "unsynced"


@cache
def boot_id() -> str:
    """Names the kernel's present life; unlike any other, and unlike every other process's where it cannot be known."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return os.urandom(16).hex()


class Unsynced:
    """The notes of one layout. ``boot``: the present one."""

    def __init__(self, root: str, *, boot: str = "") -> None:
        self._folder = os.path.join(root, _FOLDER)
        self._boot = boot or boot_id()
        self._here = os.path.join(self._folder, self._boot)
        self._doubts: dict[str, set[str]] | None = None
        self._noted: set[str] = set()
        self._lock = threading.Lock()

    def note(self, *, blobs: Iterable[Digest] = (), trees: Iterable[Digest] = ()) -> None:
        """Notes what will be published unsynced. On return the notes are on the disk; noted again costs nothing."""
        names = {*map(_blob, blobs), *map(_tree, trees)}
        if self._are_noted(names):  # who has nothing to write does not wait for those who have
            return
        with self._lock:
            if not self._are_noted(names):
                self._write(names)
                self._noted |= names

    def is_doubtful_blob(self, digest: Digest) -> bool:
        """Whether the blob was published in another boot and never seen on the disk."""
        return _blob(digest) in self._doubtful()

    def is_doubtful_tree(self, diff_id: Digest) -> bool:
        """The same for an unpacked layer."""
        return _tree(diff_id) in self._doubtful()

    def renewed_blob(self, digest: Digest) -> None:
        """The blob was published anew, or checked and synced: notes of other boots say nothing about it any more."""
        self._forget(_blob(digest))

    def renewed_tree(self, diff_id: Digest) -> None:
        """The same for an unpacked layer."""
        self._forget(_tree(diff_id))

    def flush(self) -> None:
        """Brings everything to the disk, so that ``settle`` has little to wait for."""
        with contextlib.suppress(FileNotFoundError):
            _sync_file_system(self._here)

    def settle(self) -> None:
        """Brings everything to the disk and forgets this boot's notes. Only while nobody publishes (``hold_alone``).

        Where the system cannot sync one file system, nothing is forgotten.
        """
        folder = self._here
        with self._lock, contextlib.suppress(FileNotFoundError):
            if os.listdir(folder) and _sync_file_system(folder):
                self._noted.clear()
                for name in os.listdir(folder):
                    os.unlink(os.path.join(folder, name))
                os.rmdir(folder)

    def _are_noted(self, names: set[str]) -> bool:
        """Whether the notes are on the disk. Looked at there, because another process may have settled meanwhile."""
        return names <= self._noted and all(os.path.exists(os.path.join(self._here, name)) for name in names)

    def _write(self, names: Iterable[str]) -> None:
        is_new = not os.path.isdir(self._here)
        os.makedirs(self._here, mode=0o700, exist_ok=True)
        for name in names:
            os.close(os.open(os.path.join(self._here, name), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        sync_directory(self._here)
        if is_new:
            sync_directory(self._folder)
            sync_directory(os.path.dirname(self._folder))

    def _doubtful(self) -> dict[str, set[str]]:
        """The notes of other boots, each with its boots; read once, because nobody adds to them any more."""
        if self._doubts is None:
            doubts: dict[str, set[str]] = {}
            with contextlib.suppress(FileNotFoundError):
                for boot in set(os.listdir(self._folder)) - {self._boot}:
                    for name in os.listdir(os.path.join(self._folder, boot)):
                        doubts.setdefault(name, set()).add(boot)
            self._doubts = doubts
        return self._doubts

    def _forget(self, name: str) -> None:
        if not is_writable(self._folder):
            return  # the doubt stays, and costs whoever comes next the same look
        for boot in self._doubtful().pop(name, ()):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._folder, boot, name))
            with contextlib.suppress(OSError):  # others are left in it
                os.rmdir(os.path.join(self._folder, boot))


def _blob(digest: Digest) -> str:
    return f"blob-{digest.algorithm}-{digest.hex}"


def _tree(diff_id: Digest) -> str:
    return f"tree-{diff_id.algorithm}-{diff_id.hex}"


def _sync_file_system(path: str) -> bool:
    """Waits until all of the file system is on the disk; False where there is no such call, or it failed."""
    import ctypes  # noqa: PLC0415 (a pull does not need it and starts quickly)

    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        return False
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return bool(call(descriptor) == 0)
    finally:
        os.close(descriptor)
