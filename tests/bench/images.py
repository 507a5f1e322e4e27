"""What the benchmark pushes and pulls: incompressible, made and hashed before the clock starts.

Law: two blobs never share a digest by accident: every one begins with a serial of its own. The long rest of a blob is
one random buffer that all blobs share, so a thousand unique layers cost the memory of one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
from dataclasses import dataclass

__all__ = ["GIB", "KIB", "MIB", "Blob", "Image", "image", "make_blob"]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_SERIAL = 64
_REST = memoryview(random.Random(20260801).randbytes(16 * MIB))
_run = os.urandom(8).hex()
_serials = itertools.count()


@dataclass(frozen=True, slots=True)
class Blob:
    """Content in pieces, with its digest and its size in bytes."""

    parts: tuple[memoryview, ...]
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Image:
    """One layer or more, a config and the manifest over them."""

    layers: tuple[Blob, ...]
    config: Blob
    manifest: bytes


def make_blob(size: int) -> Blob:
    """A blob of ``size`` bytes that nobody has seen before."""
    serial = f"{_run}-{next(_serials)}".ljust(_SERIAL, ".").encode()[: min(size, _SERIAL)]
    parts = [memoryview(serial)]
    rest = size - len(serial)
    while rest > 0:
        parts.append(_REST[: min(rest, len(_REST))])
        rest -= len(parts[-1])
    return _blob(*parts)


def image(*sizes: int) -> Image:
    """A new image with layers of these sizes in bytes."""
    layers = tuple(make_blob(size) for size in sizes)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Labels": {"serial": f"{_run}-{next(_serials)}"}},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }
    packed = _blob(memoryview(json.dumps(config).encode()))
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor(packed, "application/vnd.oci.image.config.v1+json"),
        "layers": [_descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers],
    }
    return Image(layers, packed, json.dumps(manifest).encode())


def _blob(*parts: memoryview) -> Blob:
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part)
    return Blob(parts, f"sha256:{sha256.hexdigest()}", sum(map(len, parts)))


def _descriptor(blob: Blob, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}
