"""docker, with a dockerd of its own: load, push, pull, re-push, mount, multi-arch."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

from tests.interop.images import HOST, OTHER, Document
from tests.interop.programs import Program
from tests.interop.stored import Stored


@pytest.fixture
def loaded(docker: Program, skopeo: Program, layout: Path, tmp_path: Path) -> str:
    """The image ``app`` in the docker daemon, by its image id."""
    archive = tmp_path / "app.tar"
    skopeo("copy", f"oci:{layout}:app", f"docker-archive:{archive}:interop/app:1")
    docker("load", "--input", archive)
    return docker.stdout("image", "inspect", "--format", "{{.Id}}", "interop/app:1").decode().strip()


def push(docker: Program, image: str, ref: str) -> tuple[str, str]:
    """Tags and pushes; returns what docker said and the digest that it names."""
    docker("tag", image, ref)
    said = docker("push", ref)
    match = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
    assert match is not None, said
    return said, match[1]


def saved(docker: Program, ref: str, archive: Path) -> dict[str, bytes]:
    """The layers and the config of a local image by their name in the archive."""
    docker("save", "--output", archive, ref)
    with tarfile.open(archive) as tar:
        members = ((m, tar.extractfile(m)) for m in tar if m.isfile())
        return {
            m.name: stream.read() for m, stream in members if stream and not m.name.startswith(("manifest", "repo"))
        }


def test_there_and_back(docker: Program, registry: Stored, loaded: str, tmp_path: Path) -> None:
    """What docker pulls is the image it pushed, layer by layer, under the digest it was told."""
    ref = registry.ref("docker/app", "1")
    _, digest = push(docker, loaded, ref)
    assert registry.digest("docker/app", "1") == digest
    assert registry.document("docker/app", "1")["config"]["digest"] == loaded
    assert registry.graph("docker/app", "1")
    before = saved(docker, ref, tmp_path / "before.tar")
    docker("image", "rm", "--force", loaded)
    docker("pull", f"{registry.host}/docker/app@{digest}")
    docker("pull", ref)
    image: Document = json.loads(docker.stdout("image", "inspect", ref))[0]
    assert image["Id"] == loaded
    assert image["RepoDigests"] == [f"{registry.host}/docker/app@{digest}"]
    assert saved(docker, ref, tmp_path / "after.tar") == before


def test_push_again_sends_nothing(docker: Program, registry: Stored, loaded: str) -> None:
    """A second push finds every layer there and gives the same digest."""
    _, first = push(docker, loaded, registry.ref("docker/again", "1"))
    before = registry.uploads()
    said, second = push(docker, loaded, registry.ref("docker/again", "2"))
    assert (second, registry.uploads()) == (first, before)
    assert said.count("Layer already exists") == 2
    assert registry.tags("docker/again") == ["1", "2"]


def test_push_to_another_repository_mounts(docker: Program, registry: Stored, loaded: str) -> None:
    """docker asks for a mount from the repository it pushed to before, and gets it."""
    _, first = push(docker, loaded, registry.ref("docker/mount-from"))
    before = registry.uploads()
    said, second = push(docker, loaded, registry.ref("docker/mount-to"))
    assert said.count("Mounted from") == 2, said
    assert second == first
    assert registry.uploads() == before + 1, "docker mounts layers; the config it sends again"
    assert registry.graph("docker/mount-to", "latest") == registry.graph("docker/mount-from", "latest")


def test_pull_takes_the_platform_asked_for(docker: Program, skopeo: Program, registry: Stored, layout: Path) -> None:
    """From an index docker pulls its own platform by default, and another one on demand."""
    ref = registry.ref("docker/multi")
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{layout}:multi", f"docker://{ref}")
    for arguments, architecture in (((), HOST), (("--platform", f"linux/{OTHER}"), OTHER)):
        docker("pull", *arguments, ref)
        assert docker.stdout("image", "inspect", "--format", "{{.Architecture}}", ref).decode().strip() == architecture
        docker("image", "rm", ref)


def test_manifest_list(docker: Program, skopeo: Program, registry: Stored, layout: Path) -> None:
    """docker manifest builds a list out of pushed images and reads it back."""
    one, two, both = (registry.ref("docker/list", tag) for tag in ("one", "two", "both"))
    skopeo("copy", "--format", "v2s2", "--dest-tls-verify=false", f"oci:{layout}:app", f"docker://{one}")
    skopeo("copy", "--format", "v2s2", "--dest-tls-verify=false", f"oci:{layout}:tool", f"docker://{two}")
    docker("manifest", "create", "--insecure", both, one, two)
    docker("manifest", "annotate", both, two, "--arch", OTHER)
    docker("manifest", "push", "--insecure", both)
    listed = registry.document("docker/list", "both")
    assert listed["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    assert {m["digest"] for m in listed["manifests"]} == {registry.digest("docker/list", t) for t in ("one", "two")}
    assert json.loads(docker.stdout("manifest", "inspect", "--insecure", both)) == listed
