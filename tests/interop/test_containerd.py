"""containerd's ctr and umoci."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.interop.images import TAGS
from tests.interop.programs import Program, find
from tests.interop.stored import Stored

ALL = "--all-platforms"


@pytest.fixture
def umoci(tmp_path: Path) -> Program:
    """umoci."""
    return Program((find("umoci"),), tmp_path / "umoci")


def imported(ctr: Program, skopeo: Program, layout: Path, tag: str, digest: str, place: Path) -> str:
    """Imports a sample image, every platform of it; returns the name that containerd gives it."""
    skopeo("copy", "--all", f"oci:{layout}:{tag}", f"oci:{place}/one:interop/{tag}")
    with tarfile.open(place / "image.tar", "w") as tar:
        tar.add(place / "one", ".")
    ctr("images", "import", ALL, "--digests", "--snapshotter", "native", place / "image.tar")
    return next(line.split()[0] for line in ctr("images", "ls").splitlines() if digest in line)


def forget(ctr: Program) -> None:
    """Removes every image from containerd."""
    ctr("images", "rm", "--sync", *ctr("images", "ls", "-q").split())


@pytest.mark.parametrize("tag", TAGS)
def test_ctr_there_and_back(
    ctr: Program, skopeo: Program, registry: Stored, layout: Path, digests: dict[str, str], tag: str, tmp_path: Path
) -> None:
    """containerd pushes what it imported and pulls it back unchanged, every platform and compression."""
    ref = registry.ref("ctr/samples", tag)
    ctr("images", "tag", "--force", imported(ctr, skopeo, layout, tag, digests[tag], tmp_path), ref)
    ctr("images", "push", "--plain-http", ref)
    assert registry.digest("ctr/samples", tag) == digests[tag]
    forget(ctr)
    ctr("images", "pull", "--plain-http", ALL, "--snapshotter", "native", ref)
    ctr("images", "export", ALL, tmp_path / "back.tar", ref)
    with tarfile.open(tmp_path / "back.tar") as tar:
        streams = {m.name: tar.extractfile(m) for m in tar if m.isfile() and m.name.startswith("blobs/sha256/")}
        returned = {name.rpartition("/")[2]: stream.read() for name, stream in streams.items() if stream}
    assert {f"sha256:{name}": content for name, content in returned.items()} == registry.graph("ctr/samples", tag)


def test_ctr_push_again_and_elsewhere(
    ctr: Program, skopeo: Program, registry: Stored, layout: Path, digests: dict[str, str]
) -> None:
    """What containerd pulled it pushes elsewhere by mounting every blob; a second push sends nothing."""
    ref, elsewhere = registry.ref("ctr/from", "app"), registry.ref("ctr/to", "app")
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:app", f"docker://{ref}")
    ctr("images", "pull", "--plain-http", "--snapshotter", "native", ref)
    before = registry.uploads()
    ctr("images", "tag", "--force", ref, elsewhere)
    for _ in range(2):
        ctr("images", "push", "--plain-http", elsewhere)
    assert registry.uploads() == before
    assert registry.digest("ctr/to", "app") == digests["app"]
    assert registry.graph("ctr/to", "app") == registry.graph("ctr/from", "app")
    forget(ctr)


def test_umoci_round_trip(umoci: Program, skopeo: Program, registry: Stored, layout: Path, tmp_path: Path) -> None:
    """An image from the registry is unpacked and changed by umoci; the changed one goes through the registry whole."""
    ref, changed = registry.ref("umoci/app", "1"), registry.ref("umoci/app", "2")
    work, back = tmp_path / "work", tmp_path / "back"
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:app", f"docker://{ref}")
    skopeo("copy", "--src-tls-verify=false", f"docker://{ref}", f"oci:{work}:app")
    umoci("unpack", "--image", f"{work}:app", tmp_path / "bundle")
    (tmp_path / "bundle" / "rootfs" / "app" / "main").write_text("changed\n")
    (tmp_path / "bundle" / "rootfs" / "app" / "empty").unlink()
    umoci("repack", "--image", f"{work}:changed", tmp_path / "bundle")
    skopeo("copy", "--dest-tls-verify=false", f"oci:{work}:changed", f"docker://{changed}")
    skopeo("copy", "--src-tls-verify=false", f"docker://{changed}", f"oci:{back}:changed")
    umoci("unpack", "--image", f"{back}:changed", tmp_path / "again")
    rootfs = tmp_path / "again" / "rootfs"
    assert {p.relative_to(rootfs).as_posix() for p in rootfs.rglob("*")} == {
        *("app", "app/main", "base"),
        *(f"base/{n}.bin" for n in range(20)),
    }
    assert (rootfs / "app" / "main").read_text() == "changed\n"
    assert registry.tags("umoci/app") == ["1", "2"]
    assert json.loads(umoci.stdout("stat", "--image", f"{back}:changed", "--json"))["history"]
