"""The tag that stands in for the referrers API where a registry has none (spec "Referrers Tag Schema").

Rule: the list is an index under the tag ``<algorithm>-<hex>`` of the subject; whoever pushes a referrer adds to it.
"""

from __future__ import annotations

import json
from typing import Any

from moorage.registry.oci import MAX_TAG, Descriptor, Digest, Manifest, ManifestInvalid, Tag
from moorage.registry.oci.media_types import OCI_INDEX

__all__ = ["parse_referrers", "tag_of", "with_referrer"]


def tag_of(subject: Digest) -> Tag:
    """The tag that lists what refers to ``subject``; long digests are cut to what a tag may have."""
    return Tag(f"{subject.algorithm}-{subject.hex}"[:MAX_TAG])


def parse_referrers(document: dict[str, Any]) -> list[Descriptor]:
    """The entries of a referrers list.

    Raises:
        ManifestInvalid: it is no such list.
    """
    entries = document.get("manifests") or []
    if not isinstance(entries, list):
        raise ManifestInvalid("manifests is not a list")
    return [Descriptor.from_json(entry, field=f"manifests[{i}]") for i, entry in enumerate(entries)]


def with_referrer(current: Manifest | None, referrer: Descriptor) -> Manifest | None:
    """The list with ``referrer`` added; None if it has it already.

    Raises:
        ManifestInvalid: what is under the tag is no index.
    """
    entries = list(current.document.manifests) if current else []
    if any(entry.digest == referrer.digest for entry in entries):
        return None
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [entry.to_json() for entry in (*entries, referrer)],
    }
    return Manifest.of(json.dumps(document, separators=(",", ":")).encode(), OCI_INDEX)
