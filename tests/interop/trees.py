"""Root file systems as values that can be compared, and what other programs make of an image."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.interop.programs import Program

__all__ = ["Node", "Tree", "differences", "docker_tree", "podman_image", "podman_tree", "read_tree", "umoci_tree"]

Tree = Mapping[str, "Node"]


@dataclass(frozen=True, slots=True)
class Node:
    """One path. ``mtime``: whole seconds, which all programs keep; ``twins``: the first path of the same file."""

    kind: str
    mode: int
    owner: tuple[int, int]
    mtime: int
    content: str = ""
    device: tuple[int, int] = (0, 0)
    twins: str = ""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


def read_tree(root: Path | str) -> dict[str, Node]:
    """Everything below ``root`` by its name, and the root itself as ``.``; names as ``os.fsdecode`` gives them."""
    names: dict[tuple[int, int], list[str]] = defaultdict(list)
    nodes = {}
    for name, path in _walk(os.fsencode(root)):
        info = os.lstat(path)
        if not stat.S_ISDIR(info.st_mode):
            names[info.st_dev, info.st_ino].append(name)
        nodes[name] = _read(path, info)
    for group in names.values():
        for name in group if len(group) > 1 else ():
            nodes[name] = replace(nodes[name], twins=min(group))
    return nodes


def _walk(root: bytes) -> Iterator[tuple[str, bytes]]:
    yield ".", root
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            yield os.fsdecode(os.path.relpath(path, root)), path


def _read(path: bytes, info: os.stat_result) -> Node:
    kind = stat.filemode(info.st_mode)[0]
    content = ""
    if kind == "-":
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif kind == "l":
        content = os.fsdecode(os.readlink(path))
    device = (os.major(info.st_rdev), os.minor(info.st_rdev)) if kind in "bc" else (0, 0)
    xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}
    owner = (info.st_uid, info.st_gid)
    return Node(kind, stat.S_IMODE(info.st_mode), owner, info.st_mtime_ns // 10**9, content, device, "", xattrs)


def differences(ours: Tree, theirs: Tree) -> list[str]:
    """Every path that is not the same on both sides, in words."""
    found = [f"{name!r}: only ours" for name in sorted(ours.keys() - theirs.keys())]
    found += [f"{name!r}: only theirs" for name in sorted(theirs.keys() - ours.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        one, two = ours[name], theirs[name]
        found += [
            f"{name!r}: {slot} is {getattr(one, slot)!r}, theirs {getattr(two, slot)!r}"
            for slot in Node.__slots__
            if getattr(one, slot) != getattr(two, slot)
        ]
    return found


def umoci_tree(umoci: Program, layout: Path, tag: str, place: Path, *options: str) -> Path:
    """Where umoci unpacks the image of a layout."""
    umoci("unpack", *options, "--image", f"{layout}:{tag}", place)
    return place / "rootfs"


def podman_image(podman: Program, layout: Path, tag: str) -> str:
    """Brings the image of a layout into podman's store; returns its id.

    podman takes the layout's path for a name, which a random ``_`` at an end would spoil: it hears the last part only.
    """
    return podman.stdout("pull", "--quiet", f"oci:{layout.name}:{tag}", cwd=layout.parent).decode().split()[-1]


def podman_tree(podman: Program, layout: Path, tag: str, *mount: str) -> Path:
    """Where podman mounts the image of a layout."""
    image = podman_image(podman, layout, tag)
    return Path(podman.stdout(*mount, "image", "mount", image).decode().split()[-1])


def docker_tree(docker: Program, skopeo: Program, layout: Path, tag: str, place: Path) -> Path:
    """Where docker's vfs driver has the image's uppermost layer."""
    archive = place / "docker.tar"
    skopeo("copy", "--insecure-policy", f"oci:{layout}:{tag}", f"docker-archive:{archive}:trees:{tag}")
    docker("load", "--input", archive)
    archive.unlink()
    layers = json.loads(docker.stdout("image", "inspect", "--format", "{{json .RootFS.Layers}}", f"trees:{tag}"))
    chain = layers[0]
    for layer in layers[1:]:
        chain = "sha256:" + hashlib.sha256(f"{chain} {layer}".encode()).hexdigest()
    data = Path(docker.environment["DOCKER_HOST"].removeprefix("unix://")).with_name("data")
    cache: str = (data / "image/vfs/layerdb/sha256" / chain.removeprefix("sha256:") / "cache-id").read_text()
    return data / "vfs" / "dir" / cache
