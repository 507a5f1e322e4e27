"""The images of the store as people ask about them: a list, and the history of one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from moorage.puller.errors import ImageError
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.stock.graph import Graph, Needs, StoredManifest
from moorage.registry.oci import Descriptor, Digest
from moorage.registry.oci.values import dataclass

__all__ = ["History", "Step", "StoredImage", "image_history", "last_use", "list_images", "steps_of"]


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A name in the store.

    ``platforms``: of the images below it that are here. ``size``: bytes of its blobs that are here; ``shared``: how
    many of them another image needs too. ``created``: as its config says. ``used``: when it was last of use here.
    """

    name: str
    descriptor: Descriptor
    platforms: tuple[str, ...]
    size: int
    shared: int
    created: datetime | None
    used: datetime | None


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an image's making. ``layer``, ``diff_id``: None where it only changed the config."""

    created: datetime | None
    created_by: str
    comment: str
    layer: Descriptor | None
    diff_id: Digest | None


@dataclass(frozen=True, slots=True)
class History:
    """How an image was made, oldest step first. ``size``: bytes of its layers, compressed."""

    name: str
    descriptor: Descriptor
    platform: str
    steps: tuple[Step, ...]

    @property
    def size(self) -> int:
        """Bytes of the compressed layers."""
        return sum(step.layer.size for step in self.steps if step.layer)


def list_images(files: LayoutFiles) -> list[StoredImage]:
    """Every named image, by name.

    Raises:
        LayoutInvalid: the store is damaged.
    """
    graph = Graph(files)
    named = [(entry.ref_name, entry.descriptor) for entry in files.read_index() if entry.ref_name]
    needs = {descriptor.digest: graph.needs(descriptor) for _, descriptor in named}
    users = Counter(digest for needed in needs.values() for digest in needed.blobs)
    images = [_describe(files, name, root, needs[root.digest], users) for name, root in named]
    return sorted(images, key=lambda image: image.name)


def image_history(files: LayoutFiles, name: str, root: Descriptor) -> History:
    """The history of the image that ``root`` leads to.

    Raises:
        ImageError: it leads to no image of a container, or to several.
        LayoutInvalid: the store is damaged.
    """
    images = [image for image in Graph(files).needs(root).images if image.config.get("rootfs")]
    if len(images) != 1:
        choice = ", ".join(f"{_platform(image.config)} {image.descriptor.digest}" for image in images)
        raise ImageError(f"{name}: say which image by its digest ({choice})" if images else f"{name}: no history")
    image = images[0]
    return History(name, image.descriptor, _platform(image.config), tuple(steps_of(image)))


def last_use(files: LayoutFiles, digest: Digest) -> float | None:
    """When the image with this manifest was last of use, as Unix time (``Store.mark_used``); None if it is not here."""
    try:
        return os.stat(files.blob_path(digest)).st_mtime
    except FileNotFoundError:
        return None


def _describe(
    files: LayoutFiles, name: str, root: Descriptor, needs: Needs, users: Mapping[Digest, int]
) -> StoredImage:
    used = last_use(files, root.digest)
    created = [moment for image in needs.images if (moment := _moment(image.config.get("created")))]
    return StoredImage(
        name,
        root,
        tuple(sorted({text for image in needs.images if (text := _platform(image.config))})),
        needs.size,
        sum(size for digest, size in needs.blobs.items() if users[digest] > 1),
        max(created, default=None),
        None if used is None else datetime.fromtimestamp(used, UTC),
    )


def steps_of(image: StoredManifest) -> Iterator[Step]:
    """The config's history with its layers; where the two do not agree, one step for each layer."""
    layers = list(zip(image.image.layers, image.diff_ids, strict=False))
    raw = image.config.get("history")
    entries = [entry for entry in raw if isinstance(entry, dict)] if isinstance(raw, list) else []
    if sum(not entry.get("empty_layer") for entry in entries) != len(layers):
        entries = [{} for _ in layers]
    waiting = iter(layers)
    for entry in entries:
        layer, diff_id = (None, None) if entry.get("empty_layer") else next(waiting)
        created_by, comment = (str(entry.get(key) or "") for key in ("created_by", "comment"))
        yield Step(_moment(entry.get("created")), created_by, comment, layer, diff_id)


def _platform(config: Mapping[str, Any]) -> str:
    parts = (config.get(key) for key in ("os", "architecture", "variant"))
    return "/".join(part for part in parts if isinstance(part, str) and part)


def _moment(raw: object) -> datetime | None:
    """A time of RFC 3339; None where there is none, or no sensible one."""
    try:
        moment = datetime.fromisoformat(raw) if isinstance(raw, str) else None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment
