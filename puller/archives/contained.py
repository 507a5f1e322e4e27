"""What images an archive holds.

Two kinds, and since docker 25 one file may be both:

    OCI archive      an image layout in a tar: index.json names manifests, blobs/<alg>/<hex>
    docker archive   manifest.json: [{Config, RepoTags, Layers}]; there is no manifest of an image in it

Law: where an index is, it decides, because it keeps digests. For a docker archive a manifest is made, the same for the
same content: layers as they lie there, byte for byte, under the diffIDs of the config where they are not compressed.
Whoever takes such a layer verifies that digest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from moorage.puller.archives.members import Members
from moorage.puller.errors import ImageError
from moorage.puller.file_body import FileSpan
from moorage.puller.layout_files import REF_NAME
from moorage.registry.oci import (
    MANIFEST_LIMIT,
    Descriptor,
    Digest,
    DigestInvalid,
    Manifest,
    ManifestInvalid,
    parse_json,
)
from moorage.registry.oci.media_types import OCI_CONFIG, OCI_IMAGE, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from moorage.registry.oci.values import dataclass, field

__all__ = ["DOCKER_NAME", "Contained", "read_contained"]

DOCKER_NAME = "io.containerd.image.name"
"""Annotation with the full name, as docker and containerd write it into the index of an archive."""

_MAX_IMAGES = 1000
_CHUNK = 1024 * 1024
_LAYER_TYPES = ((b"\x1f\x8b", OCI_LAYER_GZIP), (b"\x28\xb5\x2f\xfd", OCI_LAYER_ZSTD))


@dataclass(frozen=True, slots=True)
class Contained:
    """The images of an archive.

    Args:
        images: each with every name it has, in the order of the archive.
        spans: where the blobs lie.
        made: manifests that are not in the archive.
    """

    images: tuple[tuple[Descriptor, frozenset[str]], ...]
    spans: Mapping[Digest, FileSpan] = field(default_factory=dict)
    made: Mapping[Digest, Manifest] = field(default_factory=dict)


def read_contained(members: Members) -> Contained:
    """Reads an archive of either kind. Blocks; a docker archive with compressed layers is hashed.

    Raises:
        ImageError: it is neither, or its lists cannot be read.
    """
    try:
        if "index.json" in members:
            return _read_index(members)
        if "manifest.json" in members:
            return _read_docker(members)
    except (ManifestInvalid, DigestInvalid) as exc:
        raise ImageError(f"{members.path}: {exc.message}") from exc
    raise ImageError(f"{members.path}: neither an OCI archive nor a docker archive (no index.json, no manifest.json)")


def _read_index(members: Members) -> Contained:
    document = parse_json(members.read("index.json", limit=MANIFEST_LIMIT))
    entries = document.get("manifests") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > _MAX_IMAGES:
        raise ImageError(f"{members.path}: index.json is not a list of at most {_MAX_IMAGES} manifests")
    found = [Descriptor.from_json(entry, field=f"manifests[{i}]") for i, entry in enumerate(entries)]
    return Contained(tuple((descriptor, _names_of(descriptor)) for descriptor in found))


def _names_of(descriptor: Descriptor) -> frozenset[str]:
    annotations = descriptor.annotations or {}
    return frozenset(annotations[key] for key in (REF_NAME, DOCKER_NAME) if key in annotations)


def _read_docker(members: Members) -> Contained:
    document = parse_json(members.read("manifest.json", limit=MANIFEST_LIMIT))
    if not isinstance(document, list) or len(document) > _MAX_IMAGES:
        raise ImageError(f"{members.path}: manifest.json is not a list of at most {_MAX_IMAGES} images")
    images, spans, made = [], dict[Digest, FileSpan](), dict[Digest, Manifest]()
    for number, entry in enumerate(document):
        config, names, layers = _fields(members, entry, number)
        manifest = _make_manifest(members, config, layers, spans)
        made[manifest.digest] = manifest
        images.append((manifest.descriptor, frozenset(names)))
    return Contained(tuple(images), spans, made)


def _fields(members: Members, entry: object, number: int) -> tuple[str, list[str], list[str]]:
    if isinstance(entry, dict):
        config, names, layers = entry.get("Config"), entry.get("RepoTags") or [], entry.get("Layers") or []
        if isinstance(config, str) and _are_texts(names) and _are_texts(layers):
            return config, names, layers
    raise ImageError(f"{members.path}: image {number} of manifest.json is not described by Config, RepoTags and Layers")


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _make_manifest(members: Members, config: str, layers: list[str], spans: dict[Digest, FileSpan]) -> Manifest:
    content = members.read(config, limit=MANIFEST_LIMIT)
    digest = Digest.of(content)
    diff_ids = _diff_ids(members.path, config, content)
    if len(diff_ids) != len(layers):
        raise ImageError(f"{members.path}: {len(layers)} layers, but {config} names {len(diff_ids)}")
    spans[digest] = members.span(config)
    described = []
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        span = members.span(layer)
        descriptor = _describe_layer(span, diff_id)
        spans[descriptor.digest] = span
        described.append(descriptor.to_json())
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": Descriptor(OCI_CONFIG, digest, len(content)).to_json(),
        "layers": described,
    }
    return Manifest.of(json.dumps(document, separators=(",", ":")).encode(), OCI_IMAGE)


def _diff_ids(path: str, config: str, content: bytes) -> list[Digest]:
    document: Any = parse_json(content)
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    diff_ids = rootfs.get("diff_ids") or [] if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list):
        raise ImageError(f"{path}: {config} is no config of an image")
    return [Digest.parse(str(diff_id)) for diff_id in diff_ids]


def _describe_layer(span: FileSpan, diff_id: Digest) -> Descriptor:
    with open(span.path, "rb", buffering=0) as file:
        head = os.pread(file.fileno(), min(8, span.stop - span.start), span.start)
        for magic, media_type in _LAYER_TYPES:
            if head.startswith(magic):
                return Descriptor(media_type, _hash(file.fileno(), span), span.stop - span.start)
    return Descriptor(OCI_LAYER, diff_id, span.stop - span.start)


def _hash(file: int, span: FileSpan) -> Digest:
    hasher, algorithm = Digest.of(b"").hasher(), Digest.of(b"").algorithm
    for position in range(span.start, span.stop, _CHUNK):
        hasher.update(os.pread(file, min(_CHUNK, span.stop - position), position))
    return Digest(algorithm, hasher.hexdigest())
