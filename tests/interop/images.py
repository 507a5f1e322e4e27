"""Images made here, without a network: an OCI layout with real tar layers, the same bytes in every run.

``app`` and ``tool`` share their first layer; ``multi`` is an index over two platforms; ``zstd`` has a zstd layer.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import random
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import zstandard

__all__ = ["HOST", "OTHER", "TAGS", "Document", "Layout", "sample_layout", "sha256", "tar_of"]

Document = dict[str, Any]

HOST = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
OTHER = "arm64" if HOST == "amd64" else "amd64"
TAGS = ("app", "tool", "multi", "zstd")

_IMAGE = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, compresslevel=1, mtime=0),
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


def sha256(data: bytes) -> str:
    """The digest that names ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of regular files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, 1_700_000_000
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


class Layout:
    """Writes blobs into an OCI layout and collects what its index names."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        (directory / "blobs" / "sha256").mkdir(parents=True)
        self._named: list[Document] = []

    def blob(self, media_type: str, data: bytes) -> Document:
        """Stores ``data`` and returns its descriptor."""
        digest = sha256(data)
        (self._directory / "blobs" / digest.replace(":", "/")).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def manifest(self, document: Document) -> Document:
        """Stores a manifest or an index and returns its descriptor."""
        media_type: str = document["mediaType"]
        return self.blob(media_type, json.dumps(document).encode())

    def image(self, *layers: bytes, architecture: str = HOST, compression: str = "gzip") -> Document:
        """Stores an image of these tar archives and returns its descriptor."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/bin/none"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
            "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "interop"} for _ in layers],
        }
        return self.manifest(
            {
                "schemaVersion": 2,
                "mediaType": _IMAGE,
                "config": self.blob(_CONFIG, json.dumps(config).encode()),
                "layers": [self.blob(f"{_LAYER}+{compression}", _COMPRESS[compression](layer)) for layer in layers],
            }
        )

    def name(self, tag: str, descriptor: Document) -> None:
        """Makes ``tag`` name the manifest."""
        self._named.append(descriptor | {"annotations": {"org.opencontainers.image.ref.name": tag}})

    def finish(self) -> None:
        """Writes the index; the layout is complete."""
        (self._directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": self._named}
        (self._directory / "index.json").write_text(json.dumps(index))


def sample_layout(directory: Path, *, seed: str = "samples") -> dict[str, str]:
    """Writes the sample images as an OCI layout and returns the digest of each tag. Another seed, other layers."""
    noise = random.Random(seed)
    base = tar_of({f"base/{n}.bin": noise.randbytes(100_000) for n in range(20)})
    app = tar_of({"app/main": noise.randbytes(10).hex().encode() * 1000, "app/empty": b""})
    tool = tar_of({"tool/main": noise.randbytes(10).hex().encode() * 1000})
    layout = Layout(directory)
    platforms = {HOST: layout.image(base, app), OTHER: layout.image(tool, architecture=OTHER)}
    manifests = [d | {"platform": {"os": "linux", "architecture": a}} for a, d in platforms.items()]
    named = {
        "app": platforms[HOST],
        "tool": layout.image(base, tool),
        "multi": layout.manifest({"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}),
        "zstd": layout.image(base, app, compression="zstd"),
    }
    for tag, descriptor in named.items():
        layout.name(tag, descriptor)
    layout.finish()
    return {tag: str(descriptor["digest"]) for tag, descriptor in named.items()}
