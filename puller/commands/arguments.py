"""What several verbs print alike."""

from __future__ import annotations

from typing import Any

from moorage.registry.oci import Descriptor

__all__ = ["facts"]


def facts(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor in our JSON."""
    return {"digest": str(descriptor.digest), "size": descriptor.size, "mediaType": descriptor.media_type}
