"""skopeo: copies in every direction; what comes back is byte for byte what was sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.interop.images import TAGS
from tests.interop.programs import Program
from tests.interop.stored import Stored

PLAIN_OUT, PLAIN_IN = "--dest-tls-verify=false", "--src-tls-verify=false"


def push(skopeo: Program, registry: Stored, layout: Path, tag: str, repository: str) -> None:
    """Copies a sample image into the registry, all platforms of it, under its own tag."""
    skopeo("copy", "--all", PLAIN_OUT, f"oci:{layout}:{tag}", f"docker://{registry.ref(repository, tag)}")


@pytest.mark.parametrize("tag", TAGS)
def test_there_and_back(
    skopeo: Program, registry: Stored, layout: Path, digests: dict[str, str], tag: str, tmp_path: Path
) -> None:
    """Every blob and manifest arrives unchanged, gzip and zstd alike, and returns unchanged."""
    push(skopeo, registry, layout, tag, "skopeo/samples")
    assert registry.digest("skopeo/samples", tag) == digests[tag]
    skopeo("copy", "--all", PLAIN_IN, f"docker://{registry.ref('skopeo/samples', tag)}", f"oci:{tmp_path}/back:{tag}")
    sent = registry.graph("skopeo/samples", tag)
    returned = {p.name: p.read_bytes() for p in (tmp_path / "back" / "blobs" / "sha256").iterdir()}
    assert returned == {digest.partition(":")[2]: content for digest, content in sent.items()}


def test_docker_schema_2(skopeo: Program, registry: Stored, layout: Path, tmp_path: Path) -> None:
    """An image converted to docker's media types is kept as such."""
    ref = f"docker://{registry.ref('skopeo/schema2', 'v2')}"
    skopeo("copy", "--format", "v2s2", PLAIN_OUT, f"oci:{layout}:app", ref)
    document = registry.document("skopeo/schema2", "v2")
    assert document["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert skopeo.stdout("inspect", "--raw", "--tls-verify=false", ref) == registry.manifest("skopeo/schema2", "v2")
    skopeo("copy", PLAIN_IN, ref, f"dir:{tmp_path}/back")
    assert (tmp_path / "back" / "manifest.json").read_bytes() == registry.manifest("skopeo/schema2", "v2")


def test_list_and_delete(skopeo: Program, registry: Stored, layout: Path) -> None:
    """list-tags shows what was pushed; delete removes the manifest and every tag that names it."""
    for tag in ("app", "tool"):
        push(skopeo, registry, layout, tag, "skopeo/listed")
    listing = json.loads(skopeo.stdout("list-tags", "--tls-verify=false", f"docker://{registry.host}/skopeo/listed"))
    assert listing["Tags"] == ["app", "tool"]
    skopeo("delete", "--tls-verify=false", f"docker://{registry.ref('skopeo/listed', 'app')}")
    assert registry.tags("skopeo/listed") == ["tool"]
    assert registry.graph("skopeo/listed", "tool")


def test_push_again_with_existing_layers(skopeo: Program, registry: Stored, unseen: Path) -> None:
    """A second push of the same image, and one that shares a layer, send only what is missing."""
    push(skopeo, registry, unseen, "app", "skopeo/again")
    before = registry.uploads()
    push(skopeo, registry, unseen, "app", "skopeo/again")
    assert registry.uploads() == before
    push(skopeo, registry, unseen, "tool", "skopeo/again")
    assert registry.uploads() == before + 2, "one new layer and one new config"
    assert registry.graph("skopeo/again", "tool").keys() & registry.graph("skopeo/again", "app").keys()


def test_copy_across_repositories(skopeo: Program, registry: Stored, layout: Path, digests: dict[str, str]) -> None:
    """A copy between repositories of one registry keeps every digest and mounts every layer."""
    push(skopeo, registry, layout, "multi", "skopeo/from")
    before = registry.uploads()
    source, target = registry.ref("skopeo/from", "multi"), registry.ref("skopeo/to", "multi")
    skopeo("copy", "--all", PLAIN_IN, PLAIN_OUT, f"docker://{source}", f"docker://{target}")
    assert registry.digest("skopeo/to", "multi") == digests["multi"]
    assert registry.graph("skopeo/to", "multi") == registry.graph("skopeo/from", "multi")
    assert registry.uploads() == before + 2, "skopeo mounts layers; the two configs it sends again"


def test_recompression_to_zstd(skopeo: Program, registry: Stored, unseen: Path, tmp_path: Path) -> None:
    """Layers that skopeo compresses to zstd on the way pass through and unpack to the same diffIDs."""
    ref = f"docker://{registry.ref('skopeo/zstd', 'made')}"
    archive = tmp_path / "app.tar"
    skopeo("copy", f"oci:{unseen}:app", f"docker-archive:{archive}:interop/app:1")
    skopeo("copy", "--format", "oci", "--dest-compress-format", "zstd", PLAIN_OUT, f"docker-archive:{archive}", ref)
    layers = registry.document("skopeo/zstd", "made")["layers"]
    assert all(layer["mediaType"].endswith("zstd") for layer in layers)
    assert all(registry.blob("skopeo/zstd", layer["digest"])[:4] == b"\x28\xb5\x2f\xfd" for layer in layers)
    original = json.loads(skopeo.stdout("inspect", "--config", f"oci:{unseen}:app"))
    assert json.loads(skopeo.stdout("inspect", "--config", "--tls-verify=false", ref))["rootfs"] == original["rootfs"]
