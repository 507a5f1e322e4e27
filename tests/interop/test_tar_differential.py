"""What our reader accepts, GNU tar and bsdtar read alike: a scanner and an unpacker that disagree are a way to smuggle.

Thousands of archives at random, each unpacked by all three into a directory of its own. ``MOORAGE_ARCHIVES`` says how
many; ``MOORAGE_SEED`` where they begin.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from random import Random

import pytest
from moorage.puller.errors import ImageError
from moorage.puller.unpack.apply import unpack_layers

from tests.archives import random_archive
from tests.interop.programs import find
from tests.layers import layer_of

pytestmark = pytest.mark.timeout(600)

_COUNT = int(os.environ.get("MOORAGE_ARCHIVES", "2000"))
_SEED = int(os.environ.get("MOORAGE_SEED", "0"))
_BATCH = 250
_COMMANDS = {
    "GNU tar": "tar --extract --preserve-permissions --same-owner --numeric-owner --xattrs --delay-directory-restore",
    "bsdtar": "bsdtar -x -p --numeric-owner",
}


@pytest.mark.parametrize("program", _COMMANDS)
def test_what_we_accept_others_read_alike(program: str) -> None:
    """Names, kinds, modes, owners, times, content and links."""
    find(_COMMANDS[program].split()[0])
    accepted, refused, differing = 0, 0, []
    for first in range(_SEED, _SEED + _COUNT, _BATCH):
        with tempfile.TemporaryDirectory(prefix="moorage-") as name:
            seeds = _unpack_ours(Path(name), range(first, first + _BATCH))
            accepted += len(seeds)
            understood = _unpack_theirs(Path(name), _COMMANDS[program])
            refused += len(seeds) - len(understood)
            for seed in understood:
                ours, theirs = (_read(Path(name) / side / str(seed)) for side in ("ours", "theirs"))
                if ours != theirs:
                    differing.append((seed, [path for path in ours | theirs if ours.get(path) != theirs.get(path)]))
    assert accepted > _COUNT / 3
    assert refused < accepted / 20  # who refuses is not led to read something else
    assert differing == []


def _unpack_ours(place: Path, seeds: range) -> list[int]:
    """Writes the archives; those that we accept, and their trees."""
    accepted = []
    for side in ("ours", "theirs", "archives"):
        (place / side).mkdir()
    for seed in seeds:
        raw = random_archive(Random(seed))
        try:
            unpack_layers([layer_of(raw)], str(place / "ours" / str(seed)))
        except ImageError:
            continue
        accepted.append(seed)
        (place / "archives" / str(seed)).write_bytes(raw)
        (place / "theirs" / str(seed)).mkdir()
    return accepted


def _unpack_theirs(place: Path, command: str) -> list[int]:
    """Those that the other program accepts too."""
    script = f'for f in archives/*; do {command} -f "$f" -C "theirs/${{f##*/}}" && echo "${{f##*/}}"; done; true'
    done = subprocess.run(["sh", "-c", script], cwd=place, check=True, timeout=500, capture_output=True)
    return [int(seed) for seed in done.stdout.split()]


def _read(root: Path) -> dict[str, tuple[object, ...]]:
    """By name what each path is; of directories with something in them, which no entry describes here, only that."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        facts = (stat.filemode(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns // 10**9)
        is_implied = path.is_dir() and any(path.iterdir())
        found[str(path.relative_to(root))] = (stat.S_IFMT(info.st_mode),) if is_implied else (*facts, content)
    return found


def test_others_are_asked_in_an_empty_place() -> None:
    """The comparison would mean nothing if a program failed to start."""
    assert all(shutil.which(command.split()[0]) for command in _COMMANDS.values())
