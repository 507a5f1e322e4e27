"""podman and buildah: push, pull, list, manifests, builds, zstd."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.images import HOST, OTHER, TAGS, Layout, tar_of
from tests.interop.programs import Program, find
from tests.interop.stored import Stored
from tests.interop.trees import podman_image

PLAIN = "--tls-verify=false"


def identity(program: Program, image: str) -> tuple[str, list[str]]:
    """An image's id and the diffIDs of its layers."""
    facts = json.loads(program.stdout("inspect", "--type", "image", image))
    facts = facts[0] if isinstance(facts, list) else facts["OCIv1"] | {"Id": facts["FromImageID"]}
    layers = facts.get("RootFS", facts.get("rootfs"))
    return facts["Id"], layers.get("Layers") or layers["diff_ids"]


def test_podman_there_and_back(podman: Program, registry: Stored, layout: Path) -> None:
    """podman pulls the image that it pushed."""
    ref = registry.ref("podman/app", "1")
    image = podman_image(podman, layout, "app")
    sent = identity(podman, image)
    podman("push", PLAIN, image, ref)
    podman("image", "rm", "--force", image)
    podman("pull", PLAIN, ref)
    assert identity(podman, ref) == sent
    assert registry.document("podman/app", "1")["config"]["digest"] == f"sha256:{sent[0]}"
    assert registry.graph("podman/app", "1")


def test_podman_push_again_and_elsewhere(podman: Program, registry: Stored, unseen: Path) -> None:
    """A second push sends nothing; a push to another repository mounts."""
    image = podman_image(podman, unseen, "app")
    podman("push", PLAIN, image, registry.ref("podman/again", "1"))
    before = registry.uploads()
    podman("push", PLAIN, image, registry.ref("podman/again", "2"))
    assert registry.uploads() == before
    podman("push", PLAIN, image, registry.ref("podman/elsewhere", "1"))
    assert registry.uploads() == before + 1, "podman mounts layers; the config it sends again"
    assert registry.graph("podman/elsewhere", "1").keys() >= {f"sha256:{image}"}


def test_podman_pushes_zstd(podman: Program, registry: Stored, unseen: Path) -> None:
    """Layers pushed as zstd pass through and pull back to the same image."""
    image = podman_image(podman, unseen, "app")
    ref = registry.ref("podman/zstd")
    podman("push", PLAIN, "--compression-format", "zstd", image, ref)
    assert {m["mediaType"].rpartition("+")[2] for m in registry.document("podman/zstd", "latest")["layers"]} == {"zstd"}
    sent = identity(podman, image)
    podman("image", "rm", "--force", image)
    podman("pull", PLAIN, ref)
    assert identity(podman, ref) == sent


@pytest.fixture
def partial(tmp_path: Path) -> Iterator[Program]:
    """podman told to fetch only the files of a layer that it lacks, over a store of its own."""
    # Partial pulls need overlay, which does not stack on itself: memory works in a container too.
    with tempfile.TemporaryDirectory(prefix="moorage-", dir="/dev/shm", ignore_cleanup_errors=True) as place:
        config = Path(place) / "storage.conf"
        config.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{place}/store"\nrunroot = "{place}/run"\n'
            '[storage.options]\npull_options = {enable_partial_images = "true"}\n'
        )
        podman = Program((find("podman"),), tmp_path / "podman", {"CONTAINERS_STORAGE_CONF": str(config)})
        yield podman
        podman("system", "reset", "--force")


def test_podman_pulls_parts_of_layers(partial: Program, registry: Stored, tmp_path: Path) -> None:
    """A layer in zstd:chunked is pulled by byte ranges, several in one request, and only where files are missing."""
    noise = random.Random("parts")
    old = {f"f{n:02}": noise.randbytes(100_000) for n in range(20)}
    new = {name: noise.randbytes(100_000) if n % 3 else content for n, (name, content) in enumerate(old.items())}
    layout = Layout(tmp_path / "layout")
    for tag, files in (("old", old), ("new", new)):
        layout.name(tag, layout.image(tar_of(files)))
    layout.finish()
    for tag in ("old", "new"):
        image = podman_image(partial, tmp_path / "layout", tag)
        partial("push", PLAIN, "--compression-format", "zstd:chunked", image, registry.ref("podman/parts", tag))
    partial("rmi", "--all", "--force")
    for tag in ("old", "new"):
        said = partial("--log-level", "debug", "pull", PLAIN, registry.ref("podman/parts", tag))
        assert "Retrieved partial blob" in said
    mounted = Path(partial.stdout("image", "mount", registry.ref("podman/parts", "new")).decode().strip())
    assert {path.name: path.read_bytes() for path in mounted.iterdir()} == new
    partial("image", "umount", "--all")


def test_podman_lists_tags(podman: Program, skopeo: Program, registry: Stored, layout: Path) -> None:
    """podman search --list-tags shows every tag."""
    for tag in TAGS:
        skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:{tag}", f"docker://{registry.ref('podman/tags', tag)}")
    listed = podman.stdout("search", PLAIN, "--list-tags", "--format", "json", f"{registry.host}/podman/tags")
    assert [found["Tags"] for found in json.loads(listed)] == [sorted(TAGS)]


def test_podman_manifest_list(podman: Program, registry: Stored, layout: Path) -> None:
    """podman builds an index over two platforms, pushes it with its images, and pulls either."""
    ref = registry.ref("podman/list")
    podman("manifest", "create", "both")
    for tag, architecture in (("app", HOST), ("tool", OTHER)):
        podman("manifest", "add", "--os", "linux", "--arch", architecture, "both", f"oci:{layout}:{tag}")
    podman("manifest", "push", PLAIN, "--all", "both", f"docker://{ref}")
    document = registry.document("podman/list", "latest")
    assert {m["platform"]["architecture"] for m in document["manifests"]} == {HOST, OTHER}
    assert registry.graph("podman/list", "latest")
    podman("pull", PLAIN, "--arch", OTHER, ref)


def test_buildah_builds_on_a_pulled_base(
    buildah: Program, skopeo: Program, registry: Stored, layout: Path, tmp_path: Path
) -> None:
    """A build whose base comes from the registry, pushed back, holds the base's layers and its own."""
    base, built = registry.ref("buildah/base"), registry.ref("buildah/built")
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:app", f"docker://{base}")
    context = tmp_path / "context"
    context.mkdir()
    (context / "Containerfile").write_text(f"FROM {base}\nCOPY added /added\nLABEL interop=yes\n")
    (context / "added").write_text("added by buildah\n")
    buildah("build", PLAIN, "--tag", "built", context)
    before = registry.uploads()
    buildah("push", PLAIN, "built", f"docker://{built}")
    assert registry.uploads() == before + 2, "the new layer and the config; the base's layers are mounted"
    base_layers = [d["digest"] for d in registry.document("buildah/base", "latest")["layers"]]
    layers = [d["digest"] for d in registry.document("buildah/built", "latest")["layers"]]
    assert layers[:-1] == base_layers
    sent = identity(buildah, "built")
    buildah("rmi", "--all", "--force")
    buildah("pull", PLAIN, f"docker://{built}")
    assert identity(buildah, built) == sent


def test_buildah_from_scratch(buildah: Program, registry: Stored, tmp_path: Path) -> None:
    """A container from scratch, committed straight into the registry, comes back with its file."""
    (tmp_path / "hello").write_text("hello\n")
    ref = registry.ref("buildah/scratch")
    work = buildah.stdout("from", "scratch").decode().strip()
    buildah("copy", work, tmp_path / "hello", "/hello")
    buildah("commit", PLAIN, work, f"docker://{ref}")
    assert registry.graph("buildah/scratch", "latest")
    again = buildah.stdout("from", PLAIN, "--pull-always", ref).decode().strip()
    mounted = Path(buildah.stdout("mount", again).decode().strip())
    assert (mounted / "hello").read_text() == "hello\n"
    buildah("umount", again)


def test_buildah_manifest_list(buildah: Program, registry: Stored, layout: Path) -> None:
    """buildah builds an index over two platforms and pushes it with its images; a second push sends nothing."""
    ref = registry.ref("buildah/list")
    buildah("manifest", "create", "both")
    for tag, architecture in (("app", HOST), ("tool", OTHER)):
        buildah("manifest", "add", "--os", "linux", "--arch", architecture, "both", f"oci:{layout}:{tag}")
    uploads = []
    for _ in range(2):
        buildah("manifest", "push", PLAIN, "--all", "both", f"docker://{ref}")
        uploads.append(registry.uploads())
    assert uploads[0] == uploads[1]
    listed = registry.document("buildah/list", "latest")["manifests"]
    assert {m["platform"]["architecture"] for m in listed} == {HOST, OTHER}
    assert registry.graph("buildah/list", "latest")
