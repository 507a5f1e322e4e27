"""The store as others read it, and what we pack as others unpack it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.interop.programs import Program, find
from tests.interop.stored import Stored
from tests.interop.test_moorage_client import tree


@pytest.fixture
def umoci(tmp_path: Path) -> Program:
    """umoci."""
    return Program((find("umoci"),), tmp_path / "umoci")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory whose files belong to somebody, at a time."""
    root = tmp_path / "folder"
    (root / "bin" / "deep").mkdir(parents=True)
    (root / "bin" / "tool").write_bytes(os.urandom(50_000) + bytes(3_000_000))
    (root / "bin" / "tool").chmod(0o4755)
    (root / "bin" / "same").hardlink_to(root / "bin" / "tool")
    (root / "bin" / "link").symlink_to("tool")
    (root / "bin" / "deep" / "text").write_text("text\n")
    os.chown(root / "bin" / "deep" / "text", 1000, 100)
    os.setxattr(root / "bin" / "deep" / "text", "user.note", b"\0bytes")
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    return root


def test_the_store_is_a_layout(
    moorage: Program, skopeo: Program, umoci: Program, registry: Stored, folder: Path, tmp_path: Path
) -> None:
    """skopeo inspects it, umoci lists, describes and unpacks it; also after the verbs that change it."""
    store, ref = tmp_path / "store", registry.ref("store/app", "v1")
    moorage("push", folder, ref, "--owner", "keep")
    moorage("pull", ref)
    moorage("tag", ref, registry.ref("store/app", "v2"))
    moorage("rm", ref)
    moorage("prune")
    name = registry.ref("store/app", "v2")
    assert json.loads(skopeo.stdout("inspect", f"oci:{store}:{name}"))["Digest"] == registry.digest("store/app", "v1")
    assert umoci.stdout("list", "--layout", store).decode().split() == [name]
    history = json.loads(umoci.stdout("stat", "--image", f"{store}:{name}", "--json"))["history"]
    assert [step["created_by"] for step in history] == ["moorage push"]
    umoci("unpack", "--image", f"{store}:{name}", tmp_path / "bundle")
    assert tree(tmp_path / "bundle" / "rootfs") == tree(folder)


def test_others_may_clean_up(moorage: Program, umoci: Program, registry: Stored, folder: Path, tmp_path: Path) -> None:
    """umoci's collector leaves a store that verifies, and the trees."""
    ref = registry.ref("store/collected", "v1")
    moorage("push", folder, ref)
    moorage("pull", ref)
    umoci("gc", "--layout", tmp_path / "store")
    moorage("verify")
    assert "images" not in moorage("history", ref)
    assert len(list((tmp_path / "store" / "unpacked").iterdir())) == 1


@pytest.mark.parametrize("compression", ["gzip", "gzip:9", "zstd", "zstd:19"])
def test_podman_unpacks_what_we_pack(
    moorage: Program, podman: Program, registry: Stored, folder: Path, tmp_path: Path, compression: str
) -> None:
    """The same tree."""
    ref = registry.ref("packed/podman", compression.replace(":", "-"))
    moorage("push", folder, ref, "--owner", "keep", "--compression", compression)
    podman("pull", "--tls-verify=false", ref)
    mounted = podman.stdout("image", "mount", ref).decode().strip()
    assert tree(Path(mounted)) == tree(folder)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_containerd_and_skopeo_read_what_we_pack(
    moorage: Program, ctr: Program, skopeo: Program, registry: Stored, folder: Path, tmp_path: Path, compression: str
) -> None:
    """containerd unpacks it to a snapshot; skopeo decompresses it to what our config says it is."""
    ref = registry.ref("packed/containerd", compression)
    moorage("push", folder, ref, "--compression", compression)
    ctr("images", "pull", "--plain-http", "--snapshotter", "native", ref)
    skopeo("copy", "--src-tls-verify=false", "--dest-decompress", f"docker://{ref}", f"dir:{tmp_path / 'plain'}")
    config = json.loads(skopeo.stdout("inspect", "--config", f"dir:{tmp_path / 'plain'}"))
    names = {path.name for path in (tmp_path / "plain").iterdir()}
    assert {diff_id.partition(":")[2] for diff_id in config["rootfs"]["diff_ids"]} <= names


def test_docker_unpacks_what_we_pack(moorage: Program, docker: Program, registry: Stored, folder: Path) -> None:
    """gzip, which every version reads."""
    ref = registry.ref("packed/docker", "v1")
    moorage("push", folder, ref)
    docker("pull", ref)
    assert docker.stdout("image", "inspect", "--format", "{{.Os}}", ref).decode().strip() == "linux"


def test_owners_that_umoci_noted_come_back(
    moorage: Program, umoci: Program, registry: Stored, folder: Path, tmp_path: Path
) -> None:
    """Unpacked without rights by umoci, packed by us: the owners are the image's again."""
    ref, again = registry.ref("packed/noted", "v1"), registry.ref("packed/noted", "v2")
    moorage("push", folder, ref, "--owner", "keep")
    moorage("pull", ref)
    umoci("unpack", "--rootless", "--image", f"{tmp_path / 'store'}:{ref}", tmp_path / "bundle")
    moorage("push", tmp_path / "bundle" / "rootfs", again)
    assert registry.digest("packed/noted", "v2") == registry.digest("packed/noted", "v1")


_RULES: Sequence[str] = (
    "*.log",
    "**/*.tmp\n!keep.tmp",
    "a/**/z",
    "*\n!a/b\n!c.log",
    "a\n!a/b/z",
    "[a-b]*\n!?.log",
    "# comment\n\n /a/b/ ",
    "a/*\n!a/b\na/b/z",
    "**/z\n!a/z",
    "a/b/../b/z",
)


@pytest.mark.parametrize("rules", _RULES)
def test_ignore_rules_are_those_of_docker(
    moorage: Program, docker: Program, registry: Stored, tmp_path: Path, rules: str
) -> None:
    """A build's COPY with a .dockerignore takes the same files."""
    context = tmp_path / "context"
    for name in ("a/b/z", "a/b/x.tmp", "a/c/d/z", "a/z", "c.log", "keep.tmp", "b/c.log", "d/e/keep.tmp", "zz"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(name)
    (context / ".dockerignore").write_text(rules)
    (tmp_path / "theirs").mkdir()
    docker("build", "-t", "built", "-f", "-", context, stdin=b"FROM scratch\nCOPY . /\nCMD x\n")
    container = docker.stdout("create", "built").decode().strip()
    docker("cp", f"{container}:/", tmp_path / "theirs")
    moorage("push", context, registry.ref("packed/ignored", "v1"), "--ignore-file", context / ".dockerignore")
    moorage("pull", registry.ref("packed/ignored", "v1"), "--unpack", tmp_path / "ours")
    assert _files(tmp_path / "ours") == _files(tmp_path / "theirs")


def _files(root: Path) -> list[str]:
    """Those that have content of the context; the engine adds empty ones of its own."""
    files = (path for path in root.rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(name for path in files if (name := str(path.relative_to(root))) != ".dockerignore")
