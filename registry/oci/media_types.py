"""Media types of the image specification and of docker's schema 2.

Rule: unknown media types are data, not errors; only the types named here are interpreted.
"""

from __future__ import annotations

import re

from moorage.registry.oci.errors import ManifestInvalid

__all__ = [
    "DOCKER_IMAGE",
    "DOCKER_INDEX",
    "EMPTY_JSON",
    "IMAGE_TYPES",
    "INDEX_TYPES",
    "MANIFEST_ACCEPT",
    "NONDISTRIBUTABLE_TYPES",
    "OCI_CONFIG",
    "OCI_IMAGE",
    "OCI_INDEX",
    "OCI_LAYER",
    "OCI_LAYER_GZIP",
    "OCI_LAYER_ZSTD",
    "OCTET_STREAM",
    "SCHEMA1_TYPES",
    "check_media_type",
]

OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = f"{OCI_LAYER}+gzip"
OCI_LAYER_ZSTD = f"{OCI_LAYER}+zstd"
EMPTY_JSON = "application/vnd.oci.empty.v1+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
OCTET_STREAM = "application/octet-stream"

IMAGE_TYPES = frozenset({OCI_IMAGE, DOCKER_IMAGE})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
SCHEMA1_TYPES = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
MANIFEST_ACCEPT = ", ".join((OCI_IMAGE, OCI_INDEX, DOCKER_IMAGE, DOCKER_INDEX))
# Foreign layers live at their vendor's; registries are not given them (image-spec layer.md).
NONDISTRIBUTABLE_TYPES = frozenset(
    {
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)
# RFC 6838 section 4.2, at most 127 characters a part.
_GRAMMAR = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")


def check_media_type(raw: object, *, field: str) -> str:
    """``raw``, if it is a media type without parameters.

    Raises:
        ManifestInvalid: it is not; the detail names ``field``.
    """
    if not isinstance(raw, str) or _GRAMMAR.fullmatch(raw) is None:
        raise ManifestInvalid(f"{field} is not a media type", detail={"field": field, "value": str(raw)[:256]})
    return raw
