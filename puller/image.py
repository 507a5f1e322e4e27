"""The image in a layout: its config read, its layers ready to be unpacked."""

from __future__ import annotations

from functools import partial
from typing import Any

from moorage.puller.errors import ImageError
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.unpack.layer import Layer
from moorage.registry.oci import (
    MANIFEST_LIMIT,
    Descriptor,
    Digest,
    DigestInvalid,
    ImageManifest,
    Manifest,
    ManifestInvalid,
    Platform,
    parse_json,
)
from moorage.registry.oci.media_types import OCI_CONFIG

__all__ = ["blobs_of", "is_container", "read_config", "read_layers", "read_platform"]

_CONTAINER_CONFIGS = frozenset({OCI_CONFIG, "application/vnd.docker.container.image.v1+json"})


def is_container(manifest: Manifest) -> bool:
    """Whether it is an image to run, so that its layers are archives of files; artifacts are not."""
    document = manifest.document
    return isinstance(document, ImageManifest) and document.config.media_type in _CONTAINER_CONFIGS


def read_config(files: LayoutFiles, image: ImageManifest) -> dict[str, Any]:
    """The image's config, hashed.

    Raises:
        ImageError: it is damaged, or no config of a container image.
    """
    with files.open_blob(image.config.digest) as file:
        content = file.read(MANIFEST_LIMIT + 1)
    if Digest.of(content, image.config.digest.algorithm) != image.config.digest:
        raise ImageError(f"the config {image.config.digest} is damaged")
    try:
        document = parse_json(content)
    except ManifestInvalid as exc:
        raise ImageError(f"the config {image.config.digest}: {exc.message}") from exc
    if not isinstance(document, dict):
        raise ImageError(f"the config {image.config.digest} is not one of a container image")
    return document


def blobs_of(manifest: Manifest) -> tuple[Descriptor, ...]:
    """All that an image is made of, each once, its config first; foreign layers, too, which the registry may lack."""
    document = manifest.document
    blobs = (document.config, *document.layers) if isinstance(document, ImageManifest) else document.blobs
    return tuple({blob.digest: blob for blob in blobs}.values())


def read_platform(files: LayoutFiles, image: ImageManifest) -> Platform | None:
    """What the image says it runs on.

    Raises:
        ImageError: its config is damaged.
    """
    config = read_config(files, image)
    system, architecture, variant = (config.get(key) for key in ("os", "architecture", "variant"))
    if not (isinstance(system, str) and isinstance(architecture, str) and system and architecture):
        return None
    return Platform(system, architecture, variant if isinstance(variant, str) else "")


def read_layers(files: LayoutFiles, manifest: Manifest) -> list[Layer]:
    """The layers of the image, lowest first.

    Raises:
        ImageError: the manifest is not one of a container image with as many diffIDs as layers.
    """
    image = manifest.document
    if not isinstance(image, ImageManifest):
        raise ImageError("an index has no layers; choose a platform")
    rootfs = read_config(files, image).get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
        raise ImageError("not a container image: its config describes no root file system")
    diff_ids = rootfs.get("diff_ids") or []
    if not isinstance(diff_ids, list) or len(diff_ids) != len(image.layers):
        raise ImageError("the config and the manifest disagree on the number of layers")
    return [
        Layer(layer, _parse_diff_id(diff_id), partial(files.open_blob, layer.digest))
        for layer, diff_id in zip(image.layers, diff_ids, strict=True)
    ]


def _parse_diff_id(raw: object) -> Digest:
    try:
        return Digest.parse(str(raw))
    except DigestInvalid as exc:
        raise ImageError(f"the config has an unusable diffID: {exc.message}") from exc
