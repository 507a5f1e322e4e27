"""The other way round: ``moorage push``, ``pull``, ``copy`` and ``delete`` against registries by others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.interop.images import TAGS
from tests.interop.programs import Program
from tests.interop.stored import Stored


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with what makes packing hard: modes, links, an empty directory, names that are not ASCII."""
    root = tmp_path / "folder"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "sub" / "plain").write_bytes(os.urandom(300_000))
    (root / "naïve name").write_text("text\n")
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o4755)
    (root / "symlink").symlink_to("sub/plain")
    os.link(root / "naïve name", root / "sub" / "hardlink")
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    return root


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a directory: kind and mode, owner, time, target or content, number of links of a file."""
    return {path.relative_to(root).as_posix(): facts(path) for path in root.rglob("*")}


def facts(path: Path) -> tuple[object, ...]:
    """What an image keeps of a file."""
    status = path.lstat()
    content: object = None
    if stat.S_ISLNK(status.st_mode):
        content = path.readlink()
    elif stat.S_ISREG(status.st_mode):
        content = (path.read_bytes(), status.st_nlink)
    return (oct(status.st_mode), status.st_uid, status.st_gid, int(status.st_mtime), content)


def test_a_directory_there_and_back(moorage: Program, other: Stored, folder: Path, tmp_path: Path) -> None:
    """What is unpacked is what was packed, through a registry that is not ours."""
    ref = other.ref("client/folder", "v1")
    moorage("push", folder, ref)
    assert other.graph("client/folder", "v1")
    assert moorage.stdout("tags", f"{other.host}/client/folder").decode().split() == ["v1"]
    moorage("pull", ref, "--unpack", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)


def test_the_same_directory_again_sends_nothing_new(moorage: Program, other: Stored, folder: Path) -> None:
    """Packing is reproducible: a second push of the same files has the same digest."""
    for tag in ("one", "two"):
        moorage("push", folder, other.ref("client/again", tag))
    assert other.digest("client/again", "one") == other.digest("client/again", "two")


@pytest.mark.parametrize("tag", ["app", "zstd"])
def test_pull_what_skopeo_pushed(
    moorage: Program, skopeo: Program, other: Stored, layout: Path, digests: dict[str, str], tag: str, tmp_path: Path
) -> None:
    """Our store holds the image under its digest; skopeo reads the store; the files are the image's."""
    ref = other.ref("client/samples", tag)
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:{tag}", f"docker://{ref}")
    moorage("pull", ref, "--unpack", tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")}
    assert names == {"base", "app", "app/main", "app/empty", *(f"base/{n}.bin" for n in range(20))}
    skopeo("copy", f"oci:{tmp_path / 'store'}:{ref}", f"oci:{tmp_path / 'read'}:read")
    assert (tmp_path / "read" / "blobs" / "sha256" / digests[tag].partition(":")[2]).exists()


@pytest.mark.parametrize("tag", TAGS)
def test_copy_between_registries(
    moorage: Program, skopeo: Program, registry: Stored, other: Stored, layout: Path, digests: dict[str, str], tag: str
) -> None:
    """From the other registry to Moorage and back again every digest and byte is kept."""
    source, here, back = (s.ref(f"client/{n}", tag) for s, n in ((other, "from"), (registry, "to"), (other, "back")))
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{layout}:{tag}", f"docker://{source}")
    moorage("copy", "--all-platforms", source, here)
    moorage("copy", "--all-platforms", here, back)
    assert registry.digest("client/to", tag) == digests[tag]
    assert other.graph("client/from", tag) == registry.graph("client/to", tag) == other.graph("client/back", tag)


def test_delete(moorage: Program, other: Stored, folder: Path) -> None:
    """A reference by digest is deleted; asking again fails with one line and status 1."""
    moorage("push", folder, other.ref("client/deleted", "v1"))
    ref = f"{other.host}/client/deleted@{other.digest('client/deleted', 'v1')}"
    moorage("delete", ref)
    again = moorage.attempt("delete", ref)
    assert again.returncode == 1
    assert len(again.stderr.decode().splitlines()) == 1, again.stderr
