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


@pytest.mark.parametrize("tag", TAGS)
def test_ctr_there_and_back(
    ctr: Program, skopeo: Program, registry: Stored, layout: Path, digests: dict[str, str], tag: str, tmp_path: Path
) -> None:
    """containerd pushes what it imported and pulls it back unchanged, every platform and compression."""
    ref, archive = registry.ref("ctr/samples", tag), tmp_path / "image.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(_named(skopeo, layout, tag, tmp_path), ".")
    ctr("images", "import", ALL, "--digests", "--snapshotter", "native", archive)
    imported = next(line.split()[0] for line in ctr("images", "ls").splitlines() if digests[tag] in line)
    ctr("images", "tag", "--force", imported, ref)
    ctr("images", "push", "--plain-http", ref)
    assert registry.digest("ctr/samples", tag) == digests[tag]
    ctr("images", "rm", "--sync", *[line.split()[0] for line in ctr("images", "ls", "-q").splitlines()])
    ctr("images", "pull", "--plain-http", ALL, "--snapshotter", "native", ref)
    ctr("images", "export", ALL, tmp_path / "back.tar", ref)
    with tarfile.open(tmp_path / "back.tar") as tar:
        streams = {m.name: tar.extractfile(m) for m in tar if m.isfile() and m.name.startswith("blobs/sha256/")}
        returned = {name.rpartition("/")[2]: stream.read() for name, stream in streams.items() if stream}
    assert {f"sha256:{name}": content for name, content in returned.items()} == registry.graph("ctr/samples", tag)


def _named(skopeo: Program, layout: Path, tag: str, place: Path) -> Path:
    skopeo("copy", "--all", f"oci:{layout}:{tag}", f"oci:{place}/one:interop/{tag}")
    return place / "one"


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
