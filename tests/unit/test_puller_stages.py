"""The steps of unpacking run at the same time, in bounded memory, and stop together."""

from __future__ import annotations

import fcntl
import gzip
import io
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from moorage.puller.errors import BrokenLayer, UnsafeLayer
from moorage.puller.unpack.apply import unpack_layers
from moorage.puller.unpack.inflate import inflate
from moorage.puller.unpack.layer import Layer
from moorage.puller.unpack.stages import Archive
from moorage.registry.oci import Descriptor, Digest
from moorage.registry.oci.media_types import OCI_LAYER

from tests.layers import archive, directory, file, layer_of, seen, symlink, unpack

_MIB = 1024 * 1024


class _Arriving(io.RawIOBase):
    """A blob that goes on for ever, read by someone else; ``taken``: bytes so far."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self.taken += len(buffer)
        return len(buffer)


def _layer(open_blob: Callable[[], io.RawIOBase]) -> Layer:
    content = b"content"
    return Layer(Descriptor(OCI_LAYER, Digest.of(content), len(content)), Digest.of(content), open_blob)  # type: ignore[arg-type]


def _wait(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _steps() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name in ("moorage-inflate", "moorage-hash")]


def test_what_nobody_takes_is_not_read() -> None:
    """So memory stays bounded, however large the layer and however slow the disk; and closing ends the threads."""
    blob = _Arriving()
    with Archive(_layer(lambda: blob), limit=2**60) as unpacking:
        taken = iter(unpacking)
        next(taken)
        _wait(lambda: blob.taken > 0)
        time.sleep(0.1)
        assert blob.taken <= 12 * _MIB
    _wait(lambda: not _steps())
    assert blob.closed


def test_what_reading_fails_with_is_raised_where_the_archive_is_taken() -> None:
    """Not in a thread that nobody looks at."""

    class Failing(_Arriving):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            raise ConnectionResetError("the registry went away")

    with Archive(_layer(Failing), limit=2**60) as unpacking, pytest.raises(ConnectionResetError, match="went away"):
        next(iter(unpacking))
    _wait(lambda: not _steps())


def test_a_blob_that_cannot_be_opened_is_told_in_the_same_way(tmp_path: Path) -> None:
    """It is opened in the thread that reads it."""
    gone = _layer(lambda: open(tmp_path / "gone", "rb", buffering=0))  # noqa: SIM115
    with pytest.raises(FileNotFoundError):
        unpack_layers([gone], str(tmp_path / "r"))
    assert list(tmp_path.iterdir()) == []


def test_a_layer_without_end_is_stopped_at_its_limit() -> None:
    """By the step that counts, before the archive is looked at."""
    with Archive(_layer(_Arriving), limit=3 * _MIB) as unpacking, pytest.raises(UnsafeLayer, match="more than 3145728"):
        for _ in unpacking:
            pass
    _wait(lambda: not _steps())


@pytest.mark.parametrize("size", [1, 100, 70_000, 3_000_000])
def test_members_of_every_size_are_read_to_the_last(size: int) -> None:
    """eStargz writes one for each file, pigz large ones."""
    parts = [os.urandom(size), b"", bytes(size), b"end"]
    blob = b"".join(gzip.compress(part, 1, mtime=0) for part in parts)
    assert b"".join(inflate(io.BytesIO(blob))) == b"".join(parts)


def test_many_small_members_cost_linear_time() -> None:
    """An inflater leaves over what it was given too much; that must not be the whole rest, 20,000 times."""
    blob = gzip.compress(b"x" * 100, 1, mtime=0) * 20_000
    began = time.process_time()
    assert sum(map(len, inflate(io.BytesIO(blob)))) == 2_000_000
    assert time.process_time() - began < 2


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_blob_may_arrive_in_any_pieces(step: int) -> None:
    """Reads of an arriving blob return what is there, if only a byte."""

    class Dripping(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(step, size or step))

    plain = b"abc" * 5000
    blob = gzip.compress(plain[:7000], mtime=0) + gzip.compress(plain[7000:], mtime=0)
    assert b"".join(inflate(Dripping(blob))) == plain
    assert b"".join(inflate(Dripping(plain))) == plain
    with pytest.raises(BrokenLayer, match="cut short"):
        list(inflate(Dripping(blob[:-9])))


def test_the_tree_waits_for_its_gate(tmp_path: Path) -> None:
    """Complete, and yet not to be seen, when the gate is asked; refused there, it is gone."""
    seen_then: list[list[str]] = []

    def refuse() -> None:
        seen_then.append(sorted(path.name for path in tmp_path.glob("**/*")))
        raise BrokenLayer("another digest")

    with pytest.raises(BrokenLayer, match="another digest"):
        unpack_layers([layer_of(archive(file("x")))], str(tmp_path / "r"), before_appear=refuse)
    assert "x" in seen_then[0]
    assert "r" not in seen_then[0]
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_unpacking_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """It can be locked, so nobody works on it; what is locked stays."""
    dead, alive = tmp_path / ".moorage-unpack-dead", tmp_path / ".moorage-unpack-alive"
    for left in (dead, alive):
        left.mkdir()
        (left / "half").write_text("half")
    descriptor = os.open(alive, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        unpack(tmp_path / "r", (file("x"),))
    finally:
        os.close(descriptor)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".moorage-unpack-alive", "r"]


def test_neighbours_share_their_way(tmp_path: Path) -> None:
    """Directories in the order of archives, and in none."""
    names = ["a/b/c/1", "a/b/2", "a/b/d/3", "a/4", "e/5", "a/b/c/6", "7", "a/b/c/d/e/f/8", "a/b/c/d/9", "e/b/c/10"]
    unpack(tmp_path / "r", tuple(file(name) for name in names))
    assert {name for name, what in seen(tmp_path / "r").items() if what.startswith("file")} == set(names)


def test_the_way_is_forgotten_when_it_changes(tmp_path: Path) -> None:
    """A link on the way that becomes a directory, and a directory that becomes a link, in the middle of a layer."""
    unpack(
        tmp_path / "r",
        (
            directory("usr/lib"),
            symlink("lib", "usr/lib"),
            file("lib/x/1"),
            file("lib/x/2"),
            directory("lib"),
            file("lib/x/3"),
            directory("d/e"),
            file("d/e/4"),
            symlink("d/e", "/usr"),
            file("d/e/5"),
            file("d/6"),
        ),
    )
    files = {name for name, what in seen(tmp_path / "r").items() if what.startswith("file")}
    assert files == {"usr/lib/x/1", "usr/lib/x/2", "lib/x/3", "usr/5", "d/6"}


def test_a_name_of_slashes_is_the_root(tmp_path: Path) -> None:
    """However long it is."""
    unpack(tmp_path / "r", (directory("/" * 300, mode=0o711), file("x")))
    assert (tmp_path / "r").stat().st_mode & 0o7777 == 0o711
