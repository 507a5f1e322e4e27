"""Unpacking without rights, as a real user: owner modes, placeholders, and the user namespace (rules 13 and 14)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moorage.puller.entries import Entry, Kind
from moorage.puller.unpack.apply import unpack_layers
from moorage.puller.unpack.namespace import enter_namespace

from tests.interop.images import Layout
from tests.layers import archive, directory, file, layer_of, node
from tests.somebody import make_somebody, run_as_somebody

pytestmark = pytest.mark.root

_CAPABILITY = b"\1\0\0\2" + b"\0\4\0\0" + bytes(12)
_LAYER = archive(
    directory("d"),
    (Entry(b"d/root", Kind.FILE, 0o4755), b""),
    (Entry(b"d/user", Kind.FILE, 0o2755, 1000, 5, xattrs={b"security.capability": _CAPABILITY}), b""),
    (Entry(b"d/link", Kind.SYMLINK, 0o777, 1000, 5, link=b"user"), b""),
    (Entry(b"d/far", Kind.FILE, 0o644, 3_000_000, 5), b""),
    node("d/null", Kind.CHARACTER_DEVICE, (1, 3)),
)
_UNPACK = """
    import json, os
    from moorage.puller.unpack.apply import unpack_layers
    from moorage.puller.unpack.namespace import enter_namespace
    from moorage.puller.unpack.notes import read_notes
    from moorage.puller.unpack.owners import OwnerMode
    place, mode, is_alone = sys.argv[1:]
    if mode == "namespace":
        enter_namespace()
    layer = tests.layers.layer_of(open(place + "/layer", "rb").read())
    owners = None if mode == "default" else OwnerMode.KEEP if mode == "namespace" else OwnerMode(mode)
    done = unpack_layers([layer], place + "/r", owners=owners, keep_markers=bool(int(is_alone)))
    print(json.dumps([os.geteuid(), done.skipped, read_notes(place + "/r")]))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of that user's, with a layer in it."""
    user = make_somebody()
    with tempfile.TemporaryDirectory(prefix="moorage-") as name:
        os.chown(name, user.pw_uid, user.pw_gid)
        (Path(name) / "layer").write_bytes(_LAYER)
        yield Path(name)


def _unpack(place: Path, mode: str, *, is_alone: bool = False) -> tuple[int, list[str], list[dict[str, Any]]]:
    done = run_as_somebody(_UNPACK, str(place), mode, str(int(is_alone)))
    assert (done.returncode, done.stderr) == (0, "")
    uid, skipped, notes = json.loads(done.stdout)
    return uid, skipped, notes


def _owners(place: Path) -> dict[str, tuple[int, int]]:
    infos = {path.name: path.lstat() for path in (place / "r" / "d").iterdir()}
    return {name: (info.st_uid, info.st_gid) for name, info in infos.items()}


def _lent(path: str, name: str) -> int:
    return next(int(line.split(":")[1]) for line in Path(path).read_text().splitlines() if line.startswith(name + ":"))


@pytest.mark.parametrize("mode", ["default", "squash"])
def test_all_belongs_to_the_caller(place: Path, mode: str) -> None:
    """And only what could matter is remarked: the device, the capability."""
    user = make_somebody()
    uid, skipped, _ = _unpack(place, mode)
    assert uid == user.pw_uid
    assert set(_owners(place).values()) == {(user.pw_uid, user.pw_gid)}
    assert len(skipped) == 2
    assert "security.capability" in skipped[0]
    assert "in place of a device" in skipped[1]


def test_modes_hold_without_rights(place: Path) -> None:
    """Setuid bits stay; a device is an empty file of its mode."""
    _unpack(place, "default")
    assert (place / "r/d/root").stat().st_mode & 0o7777 == 0o4755
    assert ((place / "r/d/null").stat().st_mode, (place / "r/d/null").stat().st_size) == (0o100600, 0)


def test_keeping_owners_goes_as_far_as_rights_do(place: Path) -> None:
    """Without a namespace not far, and that is said, once."""
    user = make_somebody()
    _, skipped, _ = _unpack(place, "keep")
    assert set(_owners(place).values()) == {(user.pw_uid, user.pw_gid)}
    assert [line for line in skipped if "files away" in line] == [
        "'d/root' and 6 more: left to you, for lack of the right to give files away"
    ]


def test_recording_owners(place: Path) -> None:
    """As umoci records them; a link cannot carry it, and that is said."""
    _, skipped, _ = _unpack(place, "record")
    assert os.getxattr(place / "r/d/user", "user.rootlesscontainers").hex() == "08e8071005"
    assert os.listxattr(place / "r/d/root") == []
    assert any(line.startswith("'d/link': left out: the attribute 'user.rootlesscontainers'") for line in skipped)


def test_a_namespace_keeps_owners(place: Path) -> None:
    """Lent ids stand for the image's; those beyond them, and devices, are remarked; capabilities hold there."""
    user = make_somebody()
    uid, skipped, _ = _unpack(place, "namespace")
    uids, gids = _lent("/etc/subuid", user.pw_name), _lent("/etc/subgid", user.pw_name)
    assert uid == 0
    found = _owners(place)
    assert found["root"] == (user.pw_uid, user.pw_gid)
    assert found["user"] == found["link"] == (uids + 999, gids + 4)
    assert found["far"] == (user.pw_uid, user.pw_gid)
    assert os.getxattr(place / "r/d/user", "security.capability")[4:8] == _CAPABILITY[4:8]
    assert sorted(line.split(":")[0] for line in skipped) == ["'d/far'", "'d/null'"]


def test_a_layer_alone_notes_what_rights_did_not_allow(place: Path) -> None:
    """Owners and devices, so that merging or packing can restore them."""
    _, _, notes = _unpack(place, "default", is_alone=True)
    assert {"owner": "d/user", "uid": 1000, "gid": 5} in notes
    assert {"owner": "d/link", "uid": 1000, "gid": 5} in notes
    assert {"device": "d/null", "kind": "character_device", "major": 1, "minor": 3} in notes
    assert not any(note.get("owner") == "d/root" for note in notes)


def test_root_needs_no_namespace() -> None:
    """Nothing happens."""
    enter_namespace()
    assert os.geteuid() == 0


@pytest.mark.parametrize(
    ("program", "message"),
    [
        pytest.param("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
                     "the process has threads", id="threads"),
        pytest.param("os.environ['PATH'] = '/nowhere'", "newuidmap is not installed", id="no newuidmap"),
        pytest.param("namespace._SUBIDS['newuidmap'] = '/nowhere'", "/nowhere lends you no ids", id="no ids"),
    ],
)  # fmt: skip
def test_why_there_is_no_namespace_is_said(program: str, message: str) -> None:
    """And the process goes on as it was."""
    make_somebody()
    done = run_as_somebody(f"""
        import os
        from moorage.puller.unpack import namespace
        before = os.geteuid()
        {program}
        try:
            namespace.enter_namespace()
        except namespace.NoNamespace as exc:
            print(exc)
        assert os.geteuid() == before
    """)
    assert done.stderr == ""
    assert message in done.stdout


def test_a_full_file_system_is_said_and_left_clean() -> None:
    """Inodes run out before bytes do (rule U9): an error of the system, and nothing stays."""
    layer = layer_of(archive(*(file(f"f{number}", b"") for number in range(500))))
    with tempfile.TemporaryDirectory(prefix="moorage-") as place:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=300", "tmpfs", place], check=True)
        try:
            with pytest.raises(OSError, match="No space left"):
                unpack_layers([layer], f"{place}/r")
            assert os.listdir(place) == []
        finally:
            subprocess.run(["umount", place], check=True)


_COMMAND = """
import importlib, json, os, subprocess, sys
from moorage.puller.cli import root
from tests.somebody import become

def run(target, *words):
    sys.argv = ["moorage", "unpack", "--store", place + "/store", *words, "127.0.0.1:1/some/image", target]
    try:
        return root(standalone_mode=False)
    except SystemExit as exc:
        return exc.code

place, user, mode = sys.argv[1:]
if os.fork() == 0:  # as root, in a process of its own, whose threads are not ours: what is imported late
    assert not run(place + "/warm", "--owner", mode)
    json.dump(list(sys.modules), open(place + "/modules", "w"))
    os._exit(0)
os.wait()
for module in json.load(open(place + "/modules")):
    importlib.import_module(module)
import moorage.puller.unpack.namespace
subprocess.run(["chown", "-R", user, place], check=True)
become(user)
sys.exit(run(place + "/r", "--owner", mode))
"""


@pytest.mark.parametrize("mode", ["keep", "squash", "record"])
def test_the_command_does_as_it_is_told(place: Path, mode: str) -> None:
    """``moorage unpack --owner``; to keep owners it enters the namespace before it starts a thread."""
    user = make_somebody()
    layout = Layout(place / "store")
    layout.name("127.0.0.1:1/some/image:latest", layout.image(_LAYER))
    layout.finish()
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, place, user.pw_name, mode],
        capture_output=True, text=True, check=False, timeout=100, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    mine, lent = (user.pw_uid, user.pw_gid), _lent("/etc/subuid", user.pw_name) + 999
    assert _owners(place)["root"] == mine
    assert _owners(place)["user"] == ((lent, _lent("/etc/subgid", user.pw_name) + 4) if mode == "keep" else mine)
    assert ("user.rootlesscontainers" in os.listxattr(place / "r/d/user")) == (mode == "record")
