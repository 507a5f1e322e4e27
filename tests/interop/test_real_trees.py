"""Real images, unpacked by us, umoci, podman and docker: a Debian, a large Python environment, a stack of changes.

The Debian is fresh from debootstrap and packed by GNU tar with all attributes; the stack is made by buildah, layer by
layer: files and directories that come, go, are renamed, and turn into each other.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from moorage.puller.image import read_layers
from moorage.puller.layout_catalog import load_manifest
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.unpack.apply import Layer, unpack_layers
from moorage.puller.unpack.inflate import inflate
from moorage.puller.unpack.source import TarReader

from tests.interop.images import Layout
from tests.interop.programs import Program, find
from tests.interop.test_same_trees import check_alike
from tests.interop.trees import docker_tree, podman_tree, umoci_tree

pytestmark = pytest.mark.timeout(600)

_LAYERS = 12


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A layout with the tags ``debian``, ``python`` and ``stack``."""
    place = tmp_path_factory.mktemp("real")
    layout = Layout(place / "layout")
    layout.name("debian", layout.image(_debian(place)))
    layout.name("python", layout.image(_tar(Path(sysconfig.get_paths()["purelib"]))))
    layout.finish()
    _build_stack(place)
    yield place / "layout"
    shutil.rmtree(place, ignore_errors=True)


def _debian(place: Path) -> bytes:
    subprocess.run(
        [find("debootstrap"), "--variant=minbase", "bookworm", place / "debian"],
        check=True, capture_output=True, timeout=500,
    )  # fmt: skip
    return _tar(place / "debian")


def _tar(root: Path) -> bytes:
    return subprocess.run(
        ["tar", "-C", root, "--xattrs", "--xattrs-include=*", "--acls", "-c", "."],
        check=True, capture_output=True, timeout=300,
    ).stdout  # fmt: skip


def _build_stack(place: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="m-", ignore_cleanup_errors=True) as run:  # a short name, as ever
        options = ("--root", f"{place}/store", "--runroot", run, "--storage-driver", "vfs")
        _commit_and_push(Program((find("buildah"), *options), place / "home"), place / "layout")


def _commit_and_push(buildah: Program, layout: Path) -> None:
    container, chance = buildah.stdout("from", "scratch").decode().strip(), random.Random(14)
    root = Path(buildah.stdout("mount", container).decode().strip())
    for _ in range(_LAYERS):
        for _ in range(60):
            _change(root, chance)
        image = buildah.stdout("commit", container).decode().split()[-1]
        buildah("rm", container)
        container = buildah.stdout("from", "--pull-never", image).decode().strip()
        root = Path(buildah.stdout("mount", container).decode().strip())
    buildah("push", image, f"oci:{layout}:stack")
    buildah("rm", container)


def _change(root: Path, chance: random.Random) -> None:
    """One thing that happens to a tree: deterministic, so that a failure can be looked at again."""
    paths = sorted(path for path in root.rglob("*"))
    folders = [root, *(path for path in paths if path.is_dir() and not path.is_symlink())]
    path = chance.choice(paths) if paths else root / "first"
    new = chance.choice(folders) / f"n{chance.randrange(40)}"
    what = chance.randrange(8)
    if what in (0, 1) and not os.path.lexists(new):
        new.write_bytes(chance.randbytes(chance.randrange(3000)))
        os.chown(new, chance.randrange(3), chance.randrange(70000))
        new.chmod(chance.choice([0o644, 0o4755, 0o600, 0o2711]))
    elif what in (2, 3) and not os.path.lexists(new) and len(new.relative_to(root).parts) < 6:
        new.mkdir(mode=chance.choice([0o755, 0o700]))
    elif what == 4 and not os.path.lexists(new):
        new.symlink_to(chance.choice(["n1", "../n2", "/n3", "/n4/n5"]))
    elif what == 5 and path.is_file() and not path.is_symlink() and not os.path.lexists(new):
        new.hardlink_to(path)
    elif what == 6 and os.path.lexists(path):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif what == 7 and os.path.lexists(path) and not os.path.lexists(new) and path not in (new, *new.parents):
        path.rename(new)


def _layers(layout: Path, tag: str) -> list[Layer]:
    """The layers of the layout's image, as the store gives them."""
    files = LayoutFiles(str(layout))
    entry = next(entry for entry in files.read_index() if entry.ref_name == tag)
    return read_layers(files, load_manifest(files, entry.descriptor))


def _count_whiteouts(layout: Path) -> int:
    count = 0
    for layer in _layers(layout, "stack"):
        with layer.open() as file:
            count += sum(b"/.wh." in b"/" + entry.name for entry in TarReader(inflate(file)))
    return count


@pytest.mark.parametrize("program", ["umoci", "podman", "docker"])
@pytest.mark.parametrize("tag", ["debian", "python", "stack"])
def test_real_images_unpack_alike(
    tag: str, program: str, images: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Entry by entry, as root."""
    if tag == "stack":
        assert _count_whiteouts(images) > _LAYERS
    unpack_layers(_layers(images, tag), str(tmp_path / "ours"))

    def unpack() -> Path:
        if program == "umoci":
            return umoci_tree(Program((find("umoci"),), tmp_path / "umoci"), images, tag, tmp_path / "bundle")
        other = request.getfixturevalue(program)
        if program == "podman":
            return podman_tree(other, images, tag)
        return docker_tree(other, request.getfixturevalue("skopeo"), images, tag, tmp_path)

    check_alike(program, tag, {}, tmp_path / "ours", unpack)
