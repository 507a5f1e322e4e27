"""References as people type them."""

from __future__ import annotations

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


def parse_reference(text: str) -> Reference:
    """The reference that a person typed.

    Raises:
        BadReference: it is not well written; the message says which part.
    """
    try:
        return Reference.parse(text)
    except (NameInvalid, TagInvalid, DigestInvalid) as exc:
        raise BadReference(f"{text}: {exc.message}") from exc


def parse_target(text: str) -> TagOrDigest:
    """The tag or digest that a person typed.

    Raises:
        BadReference: it is neither.
    """
    try:
        return parse_tag_or_digest(text)
    except (TagInvalid, DigestInvalid) as exc:
        raise BadReference(f"{text}: {exc.message}") from exc
