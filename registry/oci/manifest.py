"""Manifests: the exact bytes are the truth, parsing is a reading of them.

Rule: bytes are stored and sent on as they came; a document that two readers could understand differently (duplicate
keys, NaN, a byte-order mark, image and index at once, a media type that disagrees) is refused (rules A5, A6, A17, A19).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import islice
from typing import Any, NoReturn

from moorage.registry.oci.descriptor import Descriptor, check_annotations
from moorage.registry.oci.digest import Digest
from moorage.registry.oci.errors import ManifestInvalid
from moorage.registry.oci.media_types import (
    DOCKER_IMAGE,
    DOCKER_INDEX,
    IMAGE_TYPES,
    INDEX_TYPES,
    NONDISTRIBUTABLE_TYPES,
    OCI_IMAGE,
    OCI_INDEX,
    SCHEMA1_TYPES,
    check_media_type,
)
from moorage.registry.oci.values import dataclass

__all__ = ["MANIFEST_LIMIT", "ImageIndex", "ImageManifest", "Manifest", "parse_json", "parse_manifest"]

MANIFEST_LIMIT = 4 * 1024 * 1024
"""Largest manifest, bytes: what distribution and zot take, and what containerd agrees to pull."""

_MAX_DEPTH = 32
_MAX_DESCRIPTORS = 1000
_MAX_TOKENS = 200_000
"""Twice what a thousand descriptors with twenty annotations each have; 4 MiB of brackets took a second to parse."""

_TOKEN = re.compile(rb'[\[\]{},]|"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""What makes the parser work: a bracket, a comma, a text. Looks at each byte once, whatever stands there."""

_MARKS = (b'"', b",", b"[", b"]", b"{", b"}")


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """One image or artifact: a config and layers. ``subject``: what it refers to, if anything."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str | None
    annotations: Mapping[str, str] | None

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers that a registry must hold; foreign layers are left out."""
        return tuple(d for d in (self.config, *self.layers) if d.media_type not in NONDISTRIBUTABLE_TYPES)

    @property
    def manifests(self) -> tuple[Descriptor, ...]:
        """An image has no child manifests."""
        return ()

    @property
    def referrer_type(self) -> str | None:
        """The artifact type in a referrers list: falls back to the config's media type (spec "Listing Referrers")."""
        return self.artifact_type or self.config.media_type


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """A list of manifests, for example one image per platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str | None
    annotations: Mapping[str, str] | None

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """An index has no blobs of its own."""
        return ()

    @property
    def referrer_type(self) -> str | None:
        """The artifact type in a referrers list; an index without one has none (spec "Listing Referrers")."""
        return self.artifact_type


@dataclasses.dataclass(frozen=True)  # without slots, because of cached_property
class Manifest:
    """The bytes of a manifest under their media type and digest."""

    media_type: str
    content: bytes
    digest: Digest

    @classmethod
    def of(cls, content: bytes, media_type: str | None = None, *, digest: Digest | None = None) -> Manifest:
        """The manifest that ``content`` is; an absent media type is read from the document.

        Raises:
            ManifestInvalid: the type is absent and cannot be told from the document.
        """
        return cls(media_type or _sniff_media_type(content), content, digest or Digest.of(content))

    @property
    def descriptor(self) -> Descriptor:
        """Points at this manifest."""
        return Descriptor(self.media_type, self.digest, len(self.content))

    @cached_property
    def document(self) -> ImageManifest | ImageIndex:
        """The parsed document.

        Raises:
            ManifestInvalid: it breaks a rule; the detail names which.
        """
        return parse_manifest(self.content, self.media_type)

    def as_referrer(self) -> Descriptor:
        """The entry that stands for this manifest in its subject's referrers list (spec "Listing Referrers").

        Raises:
            ManifestInvalid: the document breaks a rule.
        """
        document = self.document
        return Descriptor(
            self.media_type, self.digest, len(self.content), document.referrer_type, document.annotations or None
        )


def parse_manifest(content: bytes, media_type: str) -> ImageManifest | ImageIndex:
    """The manifest or index in ``content``, which was declared to be ``media_type``.

    Raises:
        ManifestInvalid: it breaks a rule; the detail names which.
    """
    if media_type in SCHEMA1_TYPES:
        raise ManifestInvalid(
            "docker schema 1 is not supported; push schema 2 or OCI", detail={"mediaType": media_type}
        )
    if media_type not in IMAGE_TYPES | INDEX_TYPES:
        raise ManifestInvalid("unsupported manifest media type", detail={"mediaType": media_type[:256]})
    document = _parse_object(content)
    _check_shape(document, media_type)
    subject = document.get("subject")
    artifact_type = document.get("artifactType")
    common = (
        Descriptor.from_json(subject, field="subject") if subject is not None else None,
        check_media_type(artifact_type, field="artifactType") if artifact_type else None,
        check_annotations(document.get("annotations"), field="annotations"),
    )
    if media_type in INDEX_TYPES:
        return ImageIndex(media_type, _descriptors(document.get("manifests"), field="manifests"), *common)
    config = Descriptor.from_json(document.get("config"), field="config")
    return ImageManifest(media_type, config, _descriptors(document.get("layers"), field="layers"), *common)


def parse_json(content: bytes) -> Any:
    """JSON that has one reading only: Unicode without a mark, no duplicate keys, no NaN, at most 32 levels deep.

    Raises:
        ManifestInvalid: it is not such JSON.
    """
    try:
        document = json.loads(content.decode("utf-8"), object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise ManifestInvalid("not UTF-8") from None
    except RecursionError:
        raise ManifestInvalid(f"JSON nested deeper than {_MAX_DEPTH} levels") from None
    except ValueError as exc:
        raise ManifestInvalid(f"not JSON: {exc}") from None
    if _is_deeper_than(document, _MAX_DEPTH):
        raise ManifestInvalid(f"JSON nested deeper than {_MAX_DEPTH} levels")
    if b"\\ud" in content.lower():
        _refuse_half_pairs(document)
    return document


def _parse_object(content: bytes) -> dict[str, Any]:
    if _has_too_many_tokens(content):
        raise ManifestInvalid(f"JSON of more than {_MAX_TOKENS} texts, commas and brackets")
    document = parse_json(content)
    if not isinstance(document, dict):
        raise ManifestInvalid("not a JSON object")
    return document


def _has_too_many_tokens(content: bytes) -> bool:
    if sum(map(content.count, _MARKS)) <= _MAX_TOKENS:  # counted in texts too, which is quick
        return False
    return any(True for _ in islice(_TOKEN.finditer(content), _MAX_TOKENS, None))


def _check_shape(document: Mapping[str, Any], media_type: str) -> None:
    version = document.get("schemaVersion")
    if version != 2 or isinstance(version, bool):
        raise ManifestInvalid("schemaVersion is not 2", detail={"field": "schemaVersion"})
    declared = document.get("mediaType")
    if declared is not None and declared != media_type:
        raise ManifestInvalid(
            "mediaType disagrees with the Content-Type",
            detail={"mediaType": str(declared)[:256], "contentType": media_type},
        )
    if "manifests" in document and not {"config", "layers"}.isdisjoint(document):
        raise ManifestInvalid("both an image and an index", detail={"field": "manifests"})


def _descriptors(raw: object, *, field: str) -> tuple[Descriptor, ...]:
    if not isinstance(raw, list):
        raise ManifestInvalid(f"{field} is not a list", detail={"field": field})
    if len(raw) > _MAX_DESCRIPTORS:
        raise ManifestInvalid(f"{field} has more than {_MAX_DESCRIPTORS} entries", detail={"field": field})
    return tuple(Descriptor.from_json(entry, field=f"{field}[{i}]") for i, entry in enumerate(raw))


def _sniff_media_type(content: bytes) -> str:
    """OCI documents may leave ``mediaType`` out; then the shape tells."""
    document = _parse_object(content)
    declared = document.get("mediaType")
    if declared is not None:
        return check_media_type(declared, field="mediaType")
    if "manifests" in document:
        return OCI_INDEX
    if "config" in document:
        return OCI_IMAGE
    supported = ", ".join((OCI_IMAGE, OCI_INDEX, DOCKER_IMAGE, DOCKER_INDEX))
    raise ManifestInvalid(f"no Content-Type, and the document does not tell its type (supported: {supported})")


def _unique_pairs(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise ManifestInvalid(
                "duplicate key in JSON object", detail={"key": key[:256].encode("ascii", "backslashreplace").decode()}
            )
        unique[key] = value
    return unique


def _refuse_constant(name: str) -> NoReturn:
    raise ManifestInvalid(f"{name} is not JSON")


def _refuse_half_pairs(document: object) -> None:
    """Half of a surrogate pair is an escape that no text can hold: readers differ in what they make of it."""
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ManifestInvalid("text that is no Unicode: half a surrogate pair") from None


def _is_deeper_than(document: object, limit: int) -> bool:
    level: list[object] = [document]
    for _ in range(limit):
        if not level:
            return False
        children: list[object] = []
        for node in level:
            if isinstance(node, dict):
                children.extend(node.values())
            elif isinstance(node, list):
                children.extend(node)
        level = [node for node in children if isinstance(node, (dict, list))]
    return bool(level)
