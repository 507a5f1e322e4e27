"""What ``moorage inspect`` tells about an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from moorage.puller.show.text import human_size
from moorage.registry.oci import Descriptor, ImageIndex, ImageManifest
from moorage.registry.oci.values import dataclass

__all__ = ["Inspection"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """A manifest and, for an image, its config. ``name``: how it was asked for."""

    name: str
    descriptor: Descriptor
    document: ImageManifest | ImageIndex
    config: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Everything, as one JSON object."""
        document = {
            "reference": self.name,
            **self.descriptor.to_json(),
            "manifests": [child.to_json() for child in self.document.manifests],
            "layers": [layer.to_json() for layer in self._layers],
            "annotations": self.document.annotations,
            "config": dict(self.config),
        }
        return {key: value for key, value in document.items() if value}

    def to_lines(self) -> list[str]:
        """The same for people."""
        return [f"{label + ':':<11} {text}" for label, text in self._facts() if text]

    @property
    def _layers(self) -> tuple[Descriptor, ...]:
        return self.document.layers if isinstance(self.document, ImageManifest) else ()

    def _facts(self) -> Iterator[tuple[str, str]]:
        yield "reference", self.name
        yield "digest", str(self.descriptor.digest)
        yield "type", self.descriptor.media_type
        for child in self.document.manifests:
            yield "image", f"{child.platform or 'no platform'}  {child.digest}"
        parts = (self.config.get(key) for key in ("os", "architecture", "variant"))
        yield "platform", "/".join(str(part) for part in parts if part)
        yield "created", str(self.config.get("created") or "")
        for layer in self._layers:
            yield "layer", f"{layer.digest}  {human_size(layer.size)}"
        yield "total", human_size(sum(layer.size for layer in self._layers)) if self._layers else ""
        for key, value in sorted((self.document.annotations or {}).items()):
            yield "annotation", f"{key}={value}"
