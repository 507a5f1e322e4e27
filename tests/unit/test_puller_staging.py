"""What is being made belongs to its maker while that lives, and to the next sweep when it is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from moorage.puller.staging import StagedFile, remove_tree, staging_directory, sweep

_MAKER = """
import sys
from moorage.puller.staging import *
with staging_directory(sys.argv[1]) as path:
    open(path + "/inside", "w").close()
    staged = StagedFile(sys.argv[1])
    print("made", flush=True)
    sys.stdin.read()
"""


def _left(root: Path) -> list[str]:
    return os.listdir(root / "staging")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """Committed it is where it was wanted; discarded it is nowhere."""
    kept, dropped = StagedFile(str(tmp_path)), StagedFile(str(tmp_path))
    for staged in (kept, dropped):
        staged.write(b"content")
    kept.appear(str(tmp_path / "kept"))
    for staged in (kept, dropped):
        staged.discard()
    assert (tmp_path / "kept").read_bytes() == b"content"
    assert _left(tmp_path) == []


def test_a_directory_is_removed_with_what_was_not_moved_out(tmp_path: Path) -> None:
    """What was moved out stays."""
    with staging_directory(str(tmp_path)) as path:
        os.mkdir(os.path.join(path, "tree"))
        os.mkdir(os.path.join(path, "rest"))
        os.rename(os.path.join(path, "tree"), tmp_path / "tree")
    assert (tmp_path / "tree").is_dir()
    assert _left(tmp_path) == []


def test_a_sweep_leaves_the_living_alone(tmp_path: Path) -> None:
    """Theirs is locked."""
    staged = StagedFile(str(tmp_path))
    with staging_directory(str(tmp_path)) as path:
        assert sweep(str(tmp_path)) == 0
        assert os.path.isdir(path)
    assert os.path.exists(staged.path)
    staged.discard()


def test_a_sweep_removes_what_the_dead_left(tmp_path: Path) -> None:
    """A kill lets go of the locks."""
    with subprocess.Popen(
        [sys.executable, "-c", _MAKER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"made\n"
        assert sweep(str(tmp_path)) == 0
        maker.send_signal(signal.SIGKILL)
    assert len(_left(tmp_path)) == 2
    assert sweep(str(tmp_path)) == 2
    assert _left(tmp_path) == []


def test_nothing_to_sweep(tmp_path: Path) -> None:
    """A store in which nothing was ever made."""
    assert sweep(str(tmp_path)) == 0


def test_makers_and_sweepers_at_once(tmp_path: Path) -> None:
    """A sweep between making and locking costs the maker a retry, never its work."""
    stop = threading.Event()
    sweepers = [threading.Thread(target=lambda: [sweep(str(tmp_path)) for _ in iter(stop.is_set, True)]) for _ in "ab"]
    for thread in sweepers:
        thread.start()
    try:
        for number in range(300):
            staged = StagedFile(str(tmp_path))
            staged.write(b"%d" % number)
            staged.appear(str(tmp_path / f"file{number}"))
            with staging_directory(str(tmp_path)) as path:
                os.mkdir(os.path.join(path, "tree"))
    finally:
        stop.set()
        for thread in sweepers:
            thread.join()
    assert all((tmp_path / f"file{number}").read_bytes() == b"%d" % number for number in range(300))
    assert _left(tmp_path) == []


def test_removing_a_tree_that_forbids_it(tmp_path: Path) -> None:
    """Directories that their owner may not read or change go too; what links lead to stays."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    deep = tmp_path / "tree" / "shut" / "deep"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    (deep / "out").symlink_to(tmp_path / "outside")
    deep.chmod(0o500)
    deep.parent.chmod(0)
    remove_tree(str(tmp_path / "tree"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "outside"]


def test_removing_what_is_not_there(tmp_path: Path) -> None:
    """Is told."""
    with pytest.raises(FileNotFoundError):
        remove_tree(str(tmp_path / "none"))
