"""What several verbs print alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from moorage.puller.show.console import to_json
from moorage.puller.show.text import printable
from moorage.registry.oci import Descriptor

if TYPE_CHECKING:
    from moorage.puller.transfer import Plan

__all__ = ["facts", "tell_plan"]


def facts(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor in our JSON."""
    return {"digest": str(descriptor.digest), "size": descriptor.size, "mediaType": descriptor.media_type}


def tell_plan(plan: Plan, *, move: str, as_json: bool) -> Iterator[str]:
    """What would be done. ``move``: what moving a blob is called, such as ``fetch``."""
    from moorage.puller.show.plan import plan_lines, plan_to_json  # noqa: PLC0415 (only plans need it)

    if as_json:
        yield to_json(plan_to_json(plan))
    else:
        yield from map(printable, plan_lines(plan, move=move))
