"""The local store: an OCI image layout that other tools read as it is, and the layers unpacked beside it.

    <store>/oci-layout  index.json  blobs/     the layout; a name is a full reference: host:port/repository:tag
    <store>/ingests/                           content on its way in
    <store>/unpacked/<alg>-<hex>/              one layer by its diffID, whiteouts kept as files, shared by all images

Rule: the store is its owner's alone (mode 0700), because layers bring setuid files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from moorage.puller.errors import ImageError, TargetExists
from moorage.puller.image import read_config
from moorage.puller.layout import ImageLayout
from moorage.puller.layout_catalog import load_manifest
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.unpack.apply import Layer, OnLayer, unpack_layers
from moorage.registry.oci import Descriptor, ImageManifest, ManifestInvalid, OciError

__all__ = ["Store", "StoredImage", "default_store"]


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A name in the store. ``size``: bytes of its blobs; ``platform``: empty for an index or an artifact."""

    name: str
    descriptor: Descriptor
    platform: str
    size: int


class Store:
    """The images of one user on one machine. Opening makes what is missing."""

    def __init__(self, root: str) -> None:
        os.makedirs(root, mode=0o700, exist_ok=True)
        self.root = root
        self.files = LayoutFiles(root, create=True)

    def __repr__(self) -> str:
        return f"<Store {self.root!r}>"

    def view(self, registry: str) -> ImageLayout:
        """The images that came from ``registry``, as a registry."""
        return ImageLayout.of_registry(self.files, registry)

    def images(self) -> list[StoredImage]:
        """Every named image, by name.

        Raises:
            LayoutInvalid: the store is damaged.
        """
        entries = [entry for entry in self.files.read_index() if entry.ref_name]
        return sorted((self._describe(str(e.ref_name), e.descriptor) for e in entries), key=lambda image: image.name)

    def unpack(self, layers: Sequence[Layer], on_layer: OnLayer) -> list[str]:
        """Unpacks each layer by itself, once; returns where they are, lowest first.

        Raises:
            UnsafeLayer, BrokenLayer: a layer is refused.
        """
        os.makedirs(os.path.join(self.root, "unpacked"), mode=0o700, exist_ok=True)
        return [self._unpack_one(layer, on_layer) for layer in layers]

    def _unpack_one(self, layer: Layer, on_layer: OnLayer) -> str:
        path = os.path.join(self.root, "unpacked", f"{layer.diff_id.algorithm}-{layer.diff_id.hex}")
        if not os.path.isdir(path):
            with contextlib.suppress(TargetExists):  # another process was faster
                unpack_layers([layer], path, keep_markers=True, on_layer=on_layer)
        return path

    def _describe(self, name: str, descriptor: Descriptor) -> StoredImage:
        try:
            document = load_manifest(self.files, descriptor).document
            platform = ""
            if isinstance(document, ImageManifest):
                config = read_config(self.files, document)
                parts = (config.get(key) for key in ("os", "architecture", "variant"))
                platform = "/".join(part for part in parts if isinstance(part, str) and part)
            return StoredImage(name, descriptor, platform, sum(blob.size for blob in document.blobs))
        except (ImageError, ManifestInvalid, OciError):
            return StoredImage(name, descriptor, "", 0)


def default_store() -> str:
    """``$MOORAGE_STORE``, else ``moorage`` in ``$XDG_DATA_HOME``, else ``~/.local/share/moorage``."""
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.environ.get("MOORAGE_STORE") or os.path.join(data, "moorage")
