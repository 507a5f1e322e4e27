"""crane: the client library of ko, kaniko and many pipelines."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.interop.images import HOST, TAGS, sha256, tar_of
from tests.interop.programs import Program
from tests.interop.stored import Stored


@pytest.fixture
def samples(skopeo: Program, registry: Stored, layout: Path) -> str:
    """The repository ``crane/samples`` with every sample image."""
    for tag in TAGS:
        target = f"docker://{registry.ref('crane/samples', tag)}"
        skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{layout}:{tag}", target)
    return f"{registry.host}/crane/samples"


@pytest.mark.parametrize("tag", TAGS)
def test_pull_push_back(crane: Program, registry: Stored, samples: str, digests: dict[str, str], tag: str) -> None:
    """crane pulls a layout and pushes it elsewhere under the same digest, indexes included; validate agrees."""
    crane("pull", "--format", "oci", f"{samples}:{tag}", crane.home / "pulled")
    target = registry.ref("crane/pushed", tag)
    index = json.loads((crane.home / "pulled" / "index.json").read_text())
    crane("push", *(["--index"] if len(index["manifests"]) > 1 else []), crane.home / "pulled", target)
    assert registry.digest("crane/pushed", tag) == digests[tag] == crane("digest", target).strip()
    assert registry.graph("crane/pushed", tag) == registry.graph("crane/samples", tag)
    assert crane.stdout("manifest", target) == registry.manifest("crane/pushed", tag)


@pytest.mark.parametrize("tag", ["app", "multi"])
def test_validate(crane: Program, samples: str, tag: str) -> None:
    """crane downloads everything and finds every digest, size and diffID right."""
    assert "PASS" in crane("validate", "--remote", f"{samples}:{tag}")


def test_append_creates_and_extends(crane: Program, registry: Stored, tmp_path: Path) -> None:
    """A layer pushed onto nothing makes an image; a second one keeps the first."""
    ref = registry.ref("crane/appended")
    for name in ("one", "two"):
        (tmp_path / f"{name}.tar").write_bytes(tar_of({name: name.encode()}))
    crane("append", "--new_layer", tmp_path / "one.tar", "--new_tag", ref)
    crane("append", "--base", ref, "--new_layer", tmp_path / "two.tar", "--new_tag", ref)
    assert len(registry.document("crane/appended", "latest")["layers"]) == 2
    crane("export", ref, tmp_path / "flat.tar")
    with tarfile.open(tmp_path / "flat.tar") as flat:
        assert sorted(flat.getnames()) == ["one", "two"]


def test_copy_mounts_across_repositories(crane: Program, registry: Stored, samples: str) -> None:
    """A copy between repositories uploads no blob and keeps every byte."""
    before = registry.uploads()
    crane("copy", f"{samples}:multi", registry.ref("crane/copied", "multi"))
    assert registry.uploads() == before
    assert registry.graph("crane/copied", "multi") == registry.graph("crane/samples", "multi")


def test_tag_list_catalog_delete(crane: Program, registry: Stored, samples: str, digests: dict[str, str]) -> None:
    """Tags appear in ls, repositories in catalog; a deleted tag leaves the manifest, a deleted digest nothing."""
    ref = registry.ref("crane/deleted", "app")
    crane("copy", f"{samples}:app", ref)
    crane("tag", ref, "second")
    assert crane("ls", f"{registry.host}/crane/deleted").split() == ["app", "second"]
    assert "crane/deleted" in crane("catalog", registry.host).split()
    crane("delete", ref)
    assert registry.tags("crane/deleted") == ["second"]
    crane("delete", f"{registry.host}/crane/deleted@{digests['app']}")
    assert registry.status(f"crane/deleted/manifests/{digests['app']}") == 404
    assert registry.status("crane/deleted/manifests/second") == 404


def test_mutate_and_index(crane: Program, registry: Stored, samples: str) -> None:
    """A changed label makes a new image over the same layers; an index takes it in."""
    changed = registry.ref("crane/mutated", "changed")
    crane("copy", f"{samples}:app", registry.ref("crane/mutated", "app"))
    before = registry.uploads()
    crane("mutate", registry.ref("crane/mutated", "app"), "--label", "interop=yes", "--tag", changed)
    assert registry.uploads() == before + 1, "only the config is new"
    assert json.loads(crane.stdout("config", changed))["config"]["Labels"] == {"interop": "yes"}
    both = registry.ref("crane/mutated", "both")
    crane("index", "append", "--manifest", changed, "--manifest", registry.ref("crane/mutated", "app"), "--tag", both)
    listed = {m["digest"] for m in registry.document("crane/mutated", "both")["manifests"]}
    assert listed == {registry.digest("crane/mutated", tag) for tag in ("changed", "app")}


def test_platform_and_blob(crane: Program, registry: Stored, samples: str, digests: dict[str, str]) -> None:
    """crane picks a platform out of an index and reads a single blob."""
    assert crane("digest", "--platform", f"linux/{HOST}", f"{samples}:multi").strip() == digests["app"]
    layer = registry.document("crane/samples", "app")["layers"][0]["digest"]
    assert sha256(crane.stdout("blob", f"{samples}@{layer}")) == layer
