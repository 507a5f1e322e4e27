"""What several verbs parse, check or print alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moorage.puller.errors import BadReference
from moorage.puller.places import Spot
from moorage.puller.platforms import parse_platform
from moorage.puller.show.console import say
from moorage.registry.oci import Descriptor, Platform

__all__ = ["check_has_tag", "facts", "platform_of", "remark"]

_SHOWN_REMARKS = 10


def platform_of(text: str | None) -> Platform | None:
    """The platform that a person typed.

    Raises:
        BadReference: it is not well written.
    """
    try:
        return parse_platform(text) if text else None
    except ValueError as exc:
        raise BadReference(str(exc)) from exc


def check_has_tag(there: Spot) -> None:
    """Refuses a destination without a tag.

    Raises:
        BadReference: it has none.
    """
    if not there.tags:
        raise BadReference(f"{there.name}: a destination is named by a tag, its digest follows from the content")


def facts(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor in our JSON."""
    return {"digest": str(descriptor.digest), "size": descriptor.size, "mediaType": descriptor.media_type}


def remark(skipped: Sequence[str]) -> None:
    """Tells what was left out, the first few by name."""
    for line in skipped[:_SHOWN_REMARKS]:
        say(f"left out: {line}")
    if len(skipped) > _SHOWN_REMARKS:
        say(f"left out: {len(skipped) - _SHOWN_REMARKS} more")
