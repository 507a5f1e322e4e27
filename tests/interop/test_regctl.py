"""regctl: the client that uses most of the specification: chunks, referrers, tag deletion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.interop.images import HOST, OTHER, TAGS, sha256
from tests.interop.programs import Program
from tests.interop.stored import Stored

SBOM = "application/vnd.example.sbom.v1"
LIST = ("artifact", "list", "--filter-artifact-type", SBOM, "--format", "{{json .}}")


def push(regctl: Program, registry: Stored, layout: Path, tag: str, repository: str) -> str:
    """Copies a sample image from its layout into the registry; returns the reference."""
    ref = registry.ref(repository, tag)
    regctl("image", "copy", f"ocidir://{layout}:{tag}", ref)
    return ref


@pytest.mark.parametrize("tag", TAGS)
def test_there_and_back(
    regctl: Program, registry: Stored, layout: Path, digests: dict[str, str], tag: str, tmp_path: Path
) -> None:
    """Every sample arrives under its digest and returns unchanged."""
    ref = push(regctl, registry, layout, tag, "regctl/samples")
    assert regctl("image", "digest", ref).strip() == digests[tag] == registry.digest("regctl/samples", tag)
    regctl("image", "copy", ref, f"ocidir://{tmp_path}/back:{tag}")
    returned = {f"sha256:{p.name}": p.read_bytes() for p in (tmp_path / "back" / "blobs" / "sha256").iterdir()}
    assert returned == registry.graph("regctl/samples", tag)


def test_push_again_and_copy_across_repositories(regctl: Program, registry: Stored, layout: Path) -> None:
    """Neither a second push nor a copy to another repository uploads a blob."""
    ref = push(regctl, registry, layout, "multi", "regctl/again")
    before = registry.uploads()
    push(regctl, registry, layout, "multi", "regctl/again")
    regctl("image", "copy", ref, registry.ref("regctl/elsewhere", "multi"))
    assert registry.uploads() == before
    assert registry.graph("regctl/elsewhere", "multi") == registry.graph("regctl/again", "multi")


def test_blob_put_copy_get(regctl: Program, registry: Stored, layout: Path) -> None:
    """A single blob is put, mounted into another repository by name, and read from both."""
    push(regctl, registry, layout, "app", "regctl/blobs")
    content = b"a blob by itself\n" * 10_000
    here, there = f"{registry.host}/regctl/blobs", f"{registry.host}/regctl/blobs-too"
    put = regctl("blob", "put", here, stdin=content).split()
    assert sha256(content) in put
    before = registry.uploads()
    regctl("blob", "copy", here, there, sha256(content))
    assert registry.uploads() == before
    assert regctl.stdout("blob", "get", there, sha256(content)) == content
    regctl("blob", "delete", there, sha256(content))
    assert registry.status(f"regctl/blobs-too/blobs/{sha256(content)}") == 404
    assert registry.blob("regctl/blobs", sha256(content)) == content


def test_tags_and_deletion(regctl: Program, registry: Stored, layout: Path, digests: dict[str, str]) -> None:
    """Deleting a tag leaves the manifest and its other tags; deleting the manifest removes them all."""
    ref = push(regctl, registry, layout, "app", "regctl/tags")
    regctl("image", "copy", ref, registry.ref("regctl/tags", "also"))
    push(regctl, registry, layout, "tool", "regctl/tags")
    assert regctl("tag", "ls", f"{registry.host}/regctl/tags").split() == ["also", "app", "tool"]
    assert "regctl/tags" in regctl("repo", "ls", registry.host).split()
    regctl("tag", "delete", ref)
    assert registry.tags("regctl/tags") == ["also", "tool"]
    assert registry.graph("regctl/tags", digests["app"])
    regctl("manifest", "delete", f"{registry.host}/regctl/tags@{digests['app']}")
    assert registry.tags("regctl/tags") == ["tool"]


def test_artifact_with_subject(regctl: Program, registry: Stored, layout: Path) -> None:
    """An artifact that refers to an image is found by the referrers API, filtered by type, and read back."""
    ref = push(regctl, registry, layout, "app", "regctl/subject")
    subject = registry.digest("regctl/subject", "app")
    regctl("artifact", "put", "--subject", ref, "--artifact-type", SBOM, "--annotation", "n=1", stdin=b"sbom one")
    regctl("artifact", "put", "--subject", ref, "--artifact-type", "application/vnd.example.other", stdin=b"other")
    assert len(registry.referrers("regctl/subject", subject)) == 2
    listed = json.loads(regctl.stdout(*LIST, ref))
    assert [(d["artifactType"], d["annotations"]) for d in listed["descriptors"]] == [(SBOM, {"n": "1"})]
    assert regctl.stdout("artifact", "get", "--subject", ref, "--filter-artifact-type", SBOM) == b"sbom one"
    assert SBOM in regctl("artifact", "tree", ref)
    assert registry.tags("regctl/subject") == ["app"], "no fallback tag was written"


def test_copy_takes_referrers_along(regctl: Program, registry: Stored, layout: Path) -> None:
    """A copy with --referrers brings what refers to the image."""
    ref = push(regctl, registry, layout, "app", "regctl/signed")
    regctl("artifact", "put", "--subject", ref, "--artifact-type", SBOM, stdin=b"sbom")
    regctl("image", "copy", "--referrers", ref, registry.ref("regctl/signed-too", "app"))
    subject = registry.digest("regctl/signed", "app")
    assert registry.referrers("regctl/signed-too", subject) == registry.referrers("regctl/signed", subject) != []


def test_index_of_pushed_images(regctl: Program, registry: Stored, layout: Path) -> None:
    """regctl builds an index over images in the registry."""
    refs = [push(regctl, registry, layout, tag, "regctl/index") for tag in ("app", "tool")]
    arguments = [argument for ref in refs for argument in ("--ref", ref)]
    regctl("index", "create", *arguments, registry.ref("regctl/index", "both"))
    listed = {m["digest"] for m in registry.document("regctl/index", "both")["manifests"]}
    assert listed == {registry.digest("regctl/index", tag) for tag in ("app", "tool")}
    push(regctl, registry, layout, "multi", "regctl/index")
    for architecture in (HOST, OTHER):
        multi = registry.ref("regctl/index", "multi")
        assert regctl("image", "inspect", "--platform", f"linux/{architecture}", multi)


def test_image_mod_pushes_only_what_changed(regctl: Program, registry: Stored, layout: Path) -> None:
    """A changed annotation rewrites the manifest alone."""
    ref = push(regctl, registry, layout, "app", "regctl/mod")
    before = registry.uploads()
    regctl("image", "mod", ref, "--annotation", "interop=yes", "--create", registry.ref("regctl/mod", "changed"))
    assert registry.uploads() == before
    assert registry.document("regctl/mod", "changed")["annotations"] == {"interop": "yes"}
