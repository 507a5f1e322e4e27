"""Archives of Moorage and of everybody else: docker, podman, skopeo, crane, regctl, umoci and containerd, both ways.

Rule: what skopeo and podman take apart is unseen elsewhere; they remember for good which layers are the same when
uncompressed, and would push one for the other in other tests.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.interop.images import HOST, Document, Layout, sha256, tar_of
from tests.interop.programs import Program, find
from tests.interop.stored import Stored
from tests.interop.trees import podman_image

TAGS = ("app", "zstd")
PLAIN = "--dest-tls-verify=false"


def written(moorage: Program, layout: Path, tag: str, archive: Path, kind: str, name: str = "") -> str:
    """An archive that Moorage wrote of a sample image; returns what the image is called in it."""
    moorage("copy", f"oci:{layout}:{tag}", f"{kind}:{archive}{f':{name}' if name else ''}")
    return name


def digest_of(layout: Path, tag: str) -> str:
    """The digest of a sample image."""
    index: Document = json.loads((layout / "index.json").read_text())
    names = {entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"] for entry in index["manifests"]}
    return str(names[tag])


def layers_of(layout: Path, tag: str) -> list[str]:
    """The diffIDs of a sample image."""
    manifest = json.loads(blob(layout, digest_of(layout, tag)))
    diff_ids: list[str] = json.loads(blob(layout, manifest["config"]["digest"]))["rootfs"]["diff_ids"]
    return diff_ids


def blob(layout: Path, digest: str) -> bytes:
    """The bytes of a blob of a layout."""
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """An empty place for an OCI layout."""
    return tmp_path / "copied"


def test_docker_loads_ours(docker: Program, moorage: Program, unseen: Path, tmp_path: Path) -> None:
    """``docker load`` knows the image by its name, with all its layers (docker 20.10 knows no zstd)."""
    name = written(moorage, unseen, "app", tmp_path / "x.tar", "docker-archive", "archives/app:v1")
    assert f"Loaded image: {name}" in docker("load", "--input", tmp_path / "x.tar")
    image: Document = json.loads(docker.stdout("image", "inspect", name))[0]
    assert image["RootFS"]["Layers"] == layers_of(unseen, "app")


def test_docker_saves_and_we_read(
    docker: Program, moorage: Program, registry: Stored, layout: Path, tmp_path: Path
) -> None:
    """Names, layers and config of ``docker save`` arrive, compressed or not, under one digest."""
    written(moorage, layout, "app", tmp_path / "x.tar", "docker-archive", "saved/app:v1")
    docker("load", "--input", tmp_path / "x.tar")
    docker("tag", "saved/app:v1", "saved/other:v2")
    docker("save", "--output", tmp_path / "saved.tar", "saved/app:v1", "saved/other:v2")
    for n, archive in enumerate((tmp_path / "saved.tar", gzipped(tmp_path / "saved.tar"))):
        for name in ("saved/app:v1", "docker.io/saved/other:v2"):
            moorage("push", f"docker-archive:{archive}:{name}", registry.ref("archives/saved", f"v{n}"))
    assert registry.digest("archives/saved", "v0") == registry.digest("archives/saved", "v1")
    assert registry.graph("archives/saved", "v0")
    document = registry.document("archives/saved", "v0")
    assert [layer["digest"] for layer in document["layers"]] == layers_of(layout, "app")
    docker("pull", registry.ref("archives/saved", "v0"))


def gzipped(archive: Path) -> Path:
    """A compressed copy."""
    program = Program((find("gzip"),), archive.parent)
    program("--keep", "--fast", archive)
    return archive.with_suffix(".tar.gz")


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("tag", TAGS)
def test_podman_loads_ours(
    podman: Program, moorage: Program, unseen: Path, kind: str, tag: str, tmp_path: Path
) -> None:
    """Both kinds."""
    written(moorage, unseen, tag, tmp_path / "x.tar", kind, f"localhost/archives/{tag}:v1")
    podman("load", "--input", tmp_path / "x.tar")
    (image,) = json.loads(podman.stdout("image", "inspect", f"localhost/archives/{tag}:v1"))
    assert image["RootFS"]["Layers"] == layers_of(unseen, tag)


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_podman_saves_and_we_read(podman: Program, moorage: Program, unseen: Path, form: str, tmp_path: Path) -> None:
    """Both kinds, by name and without."""
    image = podman_image(podman, unseen, "app")
    podman("tag", image, "localhost/saved:v1")
    podman("save", "--format", form, "--output", tmp_path / "saved.tar", "localhost/saved:v1")
    name = ":localhost/saved:v1" if form == "docker-archive" else ""
    moorage("copy", f"{form}:{tmp_path / 'saved.tar'}{name}", f"oci:{tmp_path / 'read'}:v1")
    moorage("copy", f"{form}:{tmp_path / 'saved.tar'}", f"oci:{tmp_path / 'again'}:v1")
    assert layers_of(tmp_path / "read", "v1") == layers_of(tmp_path / "again", "v1") == layers_of(unseen, "app")


@pytest.mark.parametrize("tag", TAGS)
def test_skopeo_reads_both_of_ours(
    skopeo: Program, moorage: Program, unseen: Path, tag: str, tmp_path: Path, copied: Path
) -> None:
    """An OCI archive keeps the digest; from a docker archive skopeo makes its own manifest of the same layers."""
    written(moorage, unseen, tag, tmp_path / "o.tar", "oci-archive", "some:name")
    skopeo("copy", f"oci-archive:{tmp_path / 'o.tar'}:some:name", f"oci:{copied}:oci")
    assert (copied / "blobs" / digest_of(unseen, tag).replace(":", "/")).exists()
    written(moorage, unseen, tag, tmp_path / "d.tar", "docker-archive", "some/name:v1")
    skopeo("copy", f"docker-archive:{tmp_path / 'd.tar'}:some/name:v1", f"oci:{copied}:docker")
    assert layers_of(copied, "docker") == layers_of(unseen, tag)


@pytest.mark.parametrize("tag", TAGS)
def test_we_read_both_of_skopeo(
    skopeo: Program, moorage: Program, unseen: Path, tag: str, tmp_path: Path, copied: Path
) -> None:
    """An OCI archive keeps the digest; a docker archive becomes an image of the same layers."""
    skopeo("copy", f"oci:{unseen}:{tag}", f"oci-archive:{tmp_path / 'o.tar'}:some:name")
    for name in (":some:name", ""):
        moorage("copy", f"oci-archive:{tmp_path / 'o.tar'}{name}", f"oci:{copied}:oci")
    assert (copied / "blobs" / digest_of(unseen, tag).replace(":", "/")).exists()
    skopeo("copy", f"oci:{unseen}:app", f"docker-archive:{tmp_path / 'd.tar'}:some/name:v1")  # skopeo refuses zstd here
    moorage("copy", f"docker-archive:{tmp_path / 'd.tar'}:some/name:v1", f"oci:{copied}:docker")
    assert layers_of(copied, "docker") == layers_of(unseen, "app")


def test_all_platforms_in_an_oci_archive(
    skopeo: Program, moorage: Program, unseen: Path, tmp_path: Path, copied: Path
) -> None:
    """An index and all below it; a docker archive refuses it, says why and leaves nothing."""
    moorage("copy", "--all-platforms", f"oci:{unseen}:multi", f"oci-archive:{tmp_path / 'x.tar'}:v1")
    skopeo("copy", "--all", f"oci-archive:{tmp_path / 'x.tar'}:v1", f"oci:{copied}:v1")
    assert (copied / "blobs" / digest_of(unseen, "multi").replace(":", "/")).exists()
    refused = moorage.attempt("copy", "--all-platforms", f"oci:{unseen}:multi", f"docker-archive:{tmp_path / 'y.tar'}")
    assert (refused.returncode, b"one platform" in refused.stderr.splitlines()[-1]) == (1, True), refused.stderr
    assert not (tmp_path / "y.tar").exists()
    moorage("copy", f"oci:{unseen}:multi", f"docker-archive:{tmp_path / 'y.tar'}")


@pytest.mark.parametrize("tag", TAGS)
def test_crane_pushes_ours(
    crane: Program, moorage: Program, registry: Stored, layout: Path, tag: str, tmp_path: Path
) -> None:
    """A docker archive, as a tarball."""
    written(moorage, layout, tag, tmp_path / "x.tar", "docker-archive", "some/name:v1")
    crane("push", tmp_path / "x.tar", registry.ref("archives/crane", tag))
    assert registry.graph("archives/crane", tag)
    config = registry.document("archives/crane", tag)["config"]["digest"]
    assert config == json.loads(crane.stdout("manifest", registry.ref("archives/crane", tag)))["config"]["digest"]


def test_we_read_crane(
    crane: Program, moorage: Program, registry: Stored, layout: Path, tmp_path: Path, copied: Path
) -> None:
    """``crane pull`` writes gzip layers under names of its own."""
    ref = registry.ref("archives/for-crane", "app")
    moorage("push", f"oci:{layout}:app", ref)
    crane("pull", ref, tmp_path / "x.tar")
    moorage("copy", f"docker-archive:{tmp_path / 'x.tar'}", f"oci:{copied}:v1")
    assert layers_of(copied, "v1") == layers_of(layout, "app")
    with tarfile.open(tmp_path / "x.tar") as archive:
        assert any(name.endswith(".tar.gz") for name in archive.getnames())


@pytest.mark.parametrize("tag", ["app", "zstd", "multi"])
def test_regctl_imports_ours_and_exports_to_us(
    regctl: Program, moorage: Program, registry: Stored, layout: Path, digests: dict[str, str], tag: str, tmp_path: Path
) -> None:
    """The digest goes through both."""
    moorage("copy", "--all-platforms", f"oci:{layout}:{tag}", f"oci-archive:{tmp_path / 'x.tar'}:{tag}")
    ref, back = registry.ref("archives/regctl", tag), registry.ref("archives/back", tag)
    regctl("image", "import", ref, tmp_path / "x.tar")
    assert registry.digest("archives/regctl", tag) == digests[tag]
    regctl("image", "export", ref, tmp_path / "y.tar")
    moorage("copy", "--all-platforms", f"oci-archive:{tmp_path / 'y.tar'}", back)
    assert registry.graph("archives/back", tag) == registry.graph("archives/regctl", tag)


def test_umoci_unpacks_what_came_through_an_archive(
    moorage: Program, layout: Path, tmp_path: Path, copied: Path
) -> None:
    """docker archive → layout → umoci."""
    written(moorage, layout, "app", tmp_path / "x.tar", "docker-archive", "some/name:v1")
    moorage("copy", f"docker-archive:{tmp_path / 'x.tar'}", f"oci:{copied}:v1")
    umoci = Program((find("umoci"),), tmp_path / "umoci")
    umoci("unpack", "--image", f"{copied}:v1", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "rootfs" / "app" / "main").exists()


def test_containerd_imports_ours(ctr: Program, moorage: Program, layout: Path, tmp_path: Path) -> None:
    """Under the name that a docker archive gives it."""
    written(moorage, layout, "app", tmp_path / "x.tar", "docker-archive", "archives/ctr:v1")
    ctr("image", "import", tmp_path / "x.tar")
    assert "docker.io/archives/ctr:v1" in ctr.stdout("image", "list", "--quiet").decode()


def test_the_store_is_a_place_too(moorage: Program, registry: Stored, layout: Path, tmp_path: Path) -> None:
    """Archive → store → archive: the same archive."""
    name = f"{registry.host}/archives/store:v1"
    moorage("copy", f"oci:{layout}:app", f"oci-archive:{tmp_path / 'one.tar'}:v1")
    moorage("copy", f"oci-archive:{tmp_path / 'one.tar'}", f"store:{name}")
    moorage("copy", f"store:{name}", f"oci-archive:{tmp_path / 'two.tar'}:v1")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    moorage("push", name, name)
    assert registry.graph("archives/store", "v1")


def test_an_archive_of_a_registry(moorage: Program, skopeo: Program, registry: Stored, tmp_path: Path) -> None:
    """Straight from the network into the file."""
    layers = [tar_of({"etc/name": str(n).encode() * 1000}) for n in range(6)]
    made = Layout(tmp_path / "made")
    made.name("v1", made.image(*layers, architecture=HOST))
    made.finish()
    ref = registry.ref("archives/network", "v1")
    moorage("push", tmp_path / "made", ref)
    moorage("copy", ref, f"docker-archive:{tmp_path / 'x.tar'}:network:v1")
    skopeo("copy", f"docker-archive:{tmp_path / 'x.tar'}", f"oci:{tmp_path / 'read'}:v1")
    assert layers_of(tmp_path / "read", "v1") == [sha256(layer) for layer in layers]
