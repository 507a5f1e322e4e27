"""Symbolic content: blobs, images, indexes and artifacts, the same bytes in every run.

Law: every piece is built from the values of ``moorage.registry.oci`` and knows what it needs, so that ``push`` can put
it through any ``Registry`` in the order that registries insist on: blobs, children, then the manifest itself.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moorage.registry.oci import CANONICAL, Descriptor, Digest, Manifest, Platform, Registry, RepositoryName, Tag
from moorage.registry.oci.media_types import (
    DOCKER_IMAGE,
    DOCKER_INDEX,
    EMPTY_JSON,
    OCI_CONFIG,
    OCI_IMAGE,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCTET_STREAM,
)

__all__ = [
    "EXAMPLE_TYPE",
    "Blob",
    "Content",
    "artifact",
    "assembled",
    "blob",
    "chunked",
    "empty_blob",
    "gallery",
    "image",
    "index",
    "json_bytes",
    "nondistributable",
    "platforms",
    "push",
    "push_blobs",
    "read_bytes",
    "repository",
]

EXAMPLE_TYPE = "application/vnd.example.thing.v1+json"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes and the descriptor that names them."""

    descriptor: Descriptor
    content: bytes

    @property
    def digest(self) -> Digest:
        """What the bytes hash to."""
        return self.descriptor.digest


@dataclass(frozen=True, slots=True)
class Content:
    """A manifest with all that a registry must hold before it takes it."""

    manifest: Manifest
    blobs: tuple[Blob, ...] = ()
    children: tuple[Content, ...] = ()

    @property
    def digest(self) -> Digest:
        """The manifest's digest."""
        return self.manifest.digest

    @property
    def descriptor(self) -> Descriptor:
        """Points at the manifest."""
        return self.manifest.descriptor

    def walk(self) -> Iterator[Content]:
        """This and everything below, children first, each as often as it is named."""
        for child in self.children:
            yield from child.walk()
        yield self


def repository(raw: str = "team/app") -> RepositoryName:
    """A repository name."""
    return RepositoryName.parse(raw)


def blob(seed: object, size: int = 1000, *, media_type: str = OCTET_STREAM, algorithm: str = CANONICAL) -> Blob:
    """``size`` bytes that look random and depend on ``seed`` only."""
    content = random.Random(repr(seed)).randbytes(size)
    return Blob(Descriptor(media_type, Digest.of(content, algorithm), size), content)


def empty_blob(algorithm: str = CANONICAL) -> Blob:
    """The blob of no bytes."""
    return Blob(Descriptor(OCTET_STREAM, Digest.of(b"", algorithm), 0), b"")


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """``document`` as JSON text."""
    return json.dumps(document).encode()


def image(
    seed: object = "image",
    *,
    layers: int = 2,
    size: int = 1000,
    docker: bool = False,
    algorithm: str = CANONICAL,
    subject: Descriptor | None = None,
    annotations: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Content:
    """An image. ``size``: bytes of a layer; ``extra``: further members of the manifest, such as unknown ones."""
    config_type, layer_type = (_DOCKER_CONFIG, _DOCKER_LAYER) if docker else (OCI_CONFIG, OCI_LAYER_GZIP)
    config_bytes = json_bytes({"architecture": "amd64", "os": "linux", "author": repr(seed)})
    config = Blob(Descriptor(config_type, Digest.of(config_bytes, algorithm), len(config_bytes)), config_bytes)
    parts = [blob((seed, number), size, media_type=layer_type, algorithm=algorithm) for number in range(layers)]
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_IMAGE if docker else OCI_IMAGE,
        "config": config.descriptor.to_json(),
        "layers": [part.descriptor.to_json() for part in parts],
        **_optional(subject=subject.to_json() if subject else None, annotations=annotations),
        **(extra or {}),
    }
    return Content(_manifest(document, algorithm), (config, *parts))


def assembled(config: Mapping[str, Any], layers: Sequence[Blob]) -> Content:
    """An image of these layers. ``config``: what it says besides ``os`` and ``architecture``."""
    raw = json_bytes({"os": "linux", "architecture": "amd64", **config})
    blob = Blob(Descriptor(OCI_CONFIG, Digest.of(raw), len(raw)), raw)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": blob.descriptor.to_json(),
        "layers": [layer.descriptor.to_json() for layer in layers],
    }
    return Content(_manifest(document, CANONICAL), (blob, *layers))


def index(
    children: Sequence[Content] = (),
    *,
    docker: bool = False,
    algorithm: str = CANONICAL,
    subject: Descriptor | None = None,
    artifact_type: str | None = None,
    annotations: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Content:
    """An index of ``children``, one platform each."""
    entries = [
        {**child.descriptor.to_json(), "platform": platform.to_json()}
        for child, platform in zip(children, platforms(len(children)), strict=True)
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_INDEX if docker else OCI_INDEX,
        "manifests": entries,
        **_optional(
            artifactType=artifact_type, subject=subject.to_json() if subject else None, annotations=annotations
        ),
        **(extra or {}),
    }
    return Content(_manifest(document, algorithm), (), tuple(children))


def artifact(
    seed: object = "artifact",
    *,
    artifact_type: str | None = EXAMPLE_TYPE,
    config_type: str = EMPTY_JSON,
    layers: int = 1,
    algorithm: str = CANONICAL,
    subject: Descriptor | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Content:
    """An artifact whose config is ``{}``; with no ``layers`` it has the one ``{}`` that the specification advises."""
    config = Blob(Descriptor(config_type, Digest.of(b"{}", algorithm), 2), b"{}")
    parts = [blob((seed, number), 300, media_type=EXAMPLE_TYPE, algorithm=algorithm) for number in range(layers)]
    parts = parts or [Blob(Descriptor(EMPTY_JSON, config.digest, 2), b"{}")]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": config.descriptor.to_json(),
        "layers": [part.descriptor.to_json() for part in parts],
        **_optional(
            artifactType=artifact_type,
            subject=subject.to_json() if subject else None,
            annotations={"org.example.seed": repr(seed), **(annotations or {})},
        ),
    }
    return Content(_manifest(document, algorithm), (config, *parts))


def nondistributable(seed: object = "foreign") -> Content:
    """An image with one layer of its own and one that only its vendor may give out: never pushed."""
    plain = image(seed, layers=1)
    foreign = blob((seed, "foreign"), 500, media_type=_FOREIGN_LAYER)
    document = json.loads(plain.manifest.content)
    document["layers"].append({**foreign.descriptor.to_json(), "urls": ["https://layers.example/one"]})
    return Content(_manifest(document, CANONICAL), plain.blobs)


def platforms(count: int) -> list[Platform]:
    """``count`` different platforms."""
    known = [Platform("linux", "amd64"), Platform("linux", "arm64", "v8"), Platform("windows", "amd64", "", "10.0.1")]
    return [*known, *(Platform("linux", f"cpu{number}") for number in range(count))][:count]


def gallery() -> dict[str, Content]:
    """One of every kind of manifest, by a spoken name."""
    one, two, subject = image("one"), image("two", docker=True), image("subject")
    data = {"note": "inline", "data": "aW5saW5l"}
    return {
        "image": one,
        "docker image": two,
        "image without layers": image("bare", layers=0),
        "sha512 image": image("long", algorithm="sha512"),
        "image with unknown fields": image("custom", extra={"org.example.extra": {"deep": [1, 2.5, None, "ü"]}}),
        "image with inline data": image("data", extra={"org.example.data": data}),
        "image with foreign layer": nondistributable(),
        "large image": image("large", annotations={f"org.example.note-{n}": "A" * 10_000 for n in range(390)}),
        "index": index([one, image("three")]),
        "docker index": index([two], docker=True),
        "sha512 index": index([one, image("long", algorithm="sha512")], algorithm="sha512"),
        "nested index": index([index([one]), index([two], docker=True)]),
        "empty index": index(),
        "artifact": artifact(),
        "artifact without layers": artifact("bare", layers=0),
        "artifact index": index([artifact()], artifact_type=EXAMPLE_TYPE),
        "artifact with missing subject": artifact("signature", subject=subject.descriptor),
        "index with missing subject": index([one], subject=subject.descriptor, artifact_type=EXAMPLE_TYPE),
    }


async def chunked(content: bytes, size: int = 256) -> AsyncIterator[bytes]:
    """``content`` in pieces of ``size`` bytes."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def push_blobs(registry: Registry, name: RepositoryName, blobs: Sequence[Blob]) -> None:
    """Stores each of ``blobs``."""
    for item in blobs:
        await registry.push_blob(name, item.descriptor, chunked(item.content))


async def push(registry: Registry, name: RepositoryName, content: Content, *tags: str) -> Descriptor:
    """Stores ``content`` and all it needs; its manifest gets ``tags``."""
    for child in content.children:
        await push(registry, name, child)
    await push_blobs(registry, name, content.blobs)
    return await registry.push_manifest(name, content.manifest, tags=[Tag.parse(tag) for tag in tags])


async def read_bytes(
    registry: Registry, name: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
) -> bytes:
    """The blob's bytes, or a range of them."""
    async with registry.read_blob(name, digest, start=start, stop=stop) as stream:
        return b"".join([chunk async for chunk in stream])


def _manifest(document: Mapping[str, Any], algorithm: str) -> Manifest:
    content = json_bytes(document)
    return Manifest.of(content, document["mediaType"], digest=Digest.of(content, algorithm))


def _optional(**members: object) -> dict[str, object]:
    return {key: value for key, value in members.items() if value is not None}
