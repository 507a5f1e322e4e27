"""Names of images in archives: short as docker shows them, or full; both mean the same."""

from __future__ import annotations

from moorage.registry.oci import DigestInvalid, NameInvalid, Reference, TagInvalid

__all__ = ["full_name", "same_name"]

_HUB = "registry-1.docker.io"


def same_name(one: str, other: str) -> bool:
    """Whether two names are the same, or the same reference."""
    return one == other or (full_name(one) or one) == (full_name(other) or other)


def full_name(name: str) -> str | None:
    """The full name as docker writes it, ``docker.io/library/app:v1``; None if the name is no reference with a tag."""
    try:
        reference = Reference.parse(name)
    except (NameInvalid, TagInvalid, DigestInvalid):
        return None
    if reference.tag is None or reference.digest is not None:
        return None
    registry = "docker.io" if reference.registry == _HUB else reference.registry
    return f"{registry}/{reference.repository}:{reference.tag}"
