"""Descriptors: media type, digest and size travel together.

Rule: one validator for every descriptor anywhere in a manifest (rule A6); sizes are bytes, 0 to 2**53.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from moorage.registry.oci.digest import Digest
from moorage.registry.oci.errors import DigestInvalid, ManifestInvalid
from moorage.registry.oci.media_types import check_media_type
from moorage.registry.oci.values import dataclass

__all__ = ["MAX_SIZE", "Descriptor", "Platform", "check_annotations"]

MAX_SIZE = 2**53


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on (image-spec image-index.md)."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, raw: object, *, field: str) -> Platform:
        """The platform object of a descriptor.

        Raises:
            ManifestInvalid: it is not an object of strings.
        """
        if not isinstance(raw, dict):
            raise ManifestInvalid(f"{field} is not an object", detail={"field": field})
        os, architecture, variant, version = texts = [
            raw.get(key, "") for key in ("os", "architecture", "variant", "os.version")
        ]
        features = raw.get("os.features") or []
        if not isinstance(features, list) or not all(isinstance(t, str) for t in (*texts, *features)):
            raise ManifestInvalid(f"{field} has a member that is not text", detail={"field": field})
        return cls(os, architecture, variant, version, tuple(features))

    def to_json(self) -> dict[str, Any]:
        """The JSON object; empty members are left out."""
        full = {
            "architecture": self.architecture,
            "os": self.os,
            "variant": self.variant,
            "os.version": self.os_version,
            "os.features": list(self.os_features),
        }
        return {key: value for key, value in full.items() if value}

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A typed, sized pointer to content (image-spec descriptor.md). ``size``: bytes.

    ``urls``: where else the content may be, unchecked; nobody is asked who need not be (rule N1). ``data``: the content
    itself, as it is claimed to be. Neither is written again by ``to_json``.
    """

    media_type: str
    digest: Digest
    size: int
    artifact_type: str | None = None
    annotations: Mapping[str, str] | None = None
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    data: bytes | None = None

    @classmethod
    def from_json(cls, raw: object, *, field: str) -> Descriptor:
        """The descriptor written at ``field`` of a manifest; unknown members are ignored.

        Raises:
            ManifestInvalid: which member of which descriptor is wrong.
        """
        if not isinstance(raw, dict):
            raise ManifestInvalid(f"{field} is not a descriptor", detail={"field": field})
        artifact_type = raw.get("artifactType")
        return cls(
            check_media_type(raw.get("mediaType"), field=f"{field}.mediaType"),
            _check_digest(raw.get("digest"), field=f"{field}.digest"),
            _check_size(raw.get("size"), field=f"{field}.size"),
            check_media_type(artifact_type, field=f"{field}.artifactType") if artifact_type else None,
            check_annotations(raw.get("annotations"), field=f"{field}.annotations"),
            Platform.from_json(raw["platform"], field=f"{field}.platform") if raw.get("platform") else None,
            _urls(raw.get("urls")),
            _data(raw.get("data")),
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON object; absent members are left out."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.artifact_type is not None:
            document["artifactType"] = self.artifact_type
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.platform is not None:
            document["platform"] = self.platform.to_json()
        return document


def check_annotations(raw: object, *, field: str) -> Mapping[str, str] | None:
    """``raw``, if it is a map of text to text; None for an absent one.

    Raises:
        ManifestInvalid: it is something else.
    """
    if raw is None:
        return None
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise ManifestInvalid(f"{field} is not a map of text to text", detail={"field": field})
    return raw


def _check_digest(raw: object, *, field: str) -> Digest:
    if not isinstance(raw, str):
        raise ManifestInvalid(f"{field} is not a digest", detail={"field": field})
    try:
        return Digest.parse(raw)
    except DigestInvalid as exc:
        raise ManifestInvalid(f"{field}: {exc.message}", detail={"field": field, "digest": raw[:256]}) from None


def _urls(raw: object) -> tuple[str, ...]:
    """The URLs; what is no list of text is no offer."""
    return tuple(raw) if isinstance(raw, list) and all(isinstance(url, str) for url in raw) else ()


def _data(raw: object) -> bytes | None:
    """The embedded content; what is no base64 is none."""
    try:
        return base64.b64decode(raw, validate=True) if isinstance(raw, str) else None
    except ValueError:
        return None


def _check_size(raw: object, *, field: str) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 <= raw <= MAX_SIZE:
        raise ManifestInvalid(f"{field} is not a size from 0 to 2**53", detail={"field": field})
    return raw
