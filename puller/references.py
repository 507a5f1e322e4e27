"""References as people type them."""

from __future__ import annotations

import re

from moorage.puller.errors import BadReference
from moorage.registry.oci import (
    DigestInvalid,
    NameInvalid,
    Reference,
    TagInvalid,
    TagOrDigest,
    parse_tag_or_digest,
)

__all__ = ["parse_reference", "parse_target"]

_HOST_ALONE = re.compile(r"(?:localhost|[0-9]+(?:\.[0-9]+){3}):[0-9]+")
"""By docker's rule a repository of Docker Hub and its tag; nobody means that."""


_PLACES = frozenset({"oci", "store", "docker-archive", "oci-archive"})
_FOREIGN_PLACES = frozenset({"containers-storage", "dir", "docker-daemon", "ocidir", "sif"})
"""What skopeo and regctl know besides."""


def parse_reference(text: str) -> Reference:
    """The reference that a person typed.

    Raises:
        BadReference: it is not well written; the message says which part.
    """
    _refuse_places(text)
    try:
        reference = Reference.parse(text)
    except (NameInvalid, TagInvalid, DigestInvalid) as exc:
        raise BadReference(f"{text}: {exc.message}{_hint(text)}") from exc
    if _HOST_ALONE.fullmatch(text):
        raise BadReference(f"{text}: names a registry and no repository: write {text}/REPOSITORY[:TAG]")
    return reference


def _refuse_places(text: str) -> None:
    """By docker's rule ``dir:x`` would be a repository of Docker Hub; nobody means that either."""
    scheme, colon, _ = text.partition(":")
    if colon and scheme in _PLACES:
        raise BadReference(f"{text}: a reference is wanted here, host[:port]/repository[:tag]")
    if colon and scheme in _FOREIGN_PLACES:
        raise BadReference(f"{text}: {scheme}: is not known; oci:, docker-archive:, oci-archive: and store: are")


def _hint(text: str) -> str:
    """What people write who mean something else than a reference."""
    scheme, separator, rest = text.partition("://")
    if separator:
        return f": write it without {scheme}://" if rest else ""
    if text.startswith("/"):
        return ": it begins with '/', as if the name of the registry were empty"
    if text.startswith(("./", "../")):
        return f": an OCI layout is written oci:{text}"
    return ""


def parse_target(text: str) -> TagOrDigest:
    """The tag or digest that a person typed.

    Raises:
        BadReference: it is neither.
    """
    try:
        return parse_tag_or_digest(text)
    except (TagInvalid, DigestInvalid) as exc:
        raise BadReference(f"{text}: {exc.message}") from exc
