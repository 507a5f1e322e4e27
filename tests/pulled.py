"""Images of given archives, and the registry that has them."""

from __future__ import annotations

import gzip

from moorage.puller.remote import RemoteRegistry
from moorage.registry.oci import Descriptor, Digest, Manifest, Tag
from moorage.registry.oci.media_types import OCI_CONFIG, OCI_IMAGE, OCI_LAYER_GZIP
from moorage.registry.testing import LoopbackRegistry

from tests.content import Blob, Content, chunked, json_bytes, repository

__all__ = ["image_of", "push_image"]

_CHUNK = 1024 * 1024


def image_of(*raws: bytes, compressed: tuple[bytes, ...] = (), diff_ids: tuple[Digest, ...] = ()) -> Content:
    """An image of these archives. ``compressed``: the blobs of the layers; ``diff_ids``: what the config says."""
    blobs = compressed or tuple(gzip.compress(raw, 1, mtime=0) for raw in raws)
    layers = [Blob(Descriptor(OCI_LAYER_GZIP, Digest.of(blob), len(blob)), blob) for blob in blobs]
    names = [str(digest) for digest in diff_ids or map(Digest.of, raws)]
    text = json_bytes({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": names}})
    config = Blob(Descriptor(OCI_CONFIG, Digest.of(text), len(text)), text)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": config.descriptor.to_json(),
        "layers": [layer.descriptor.to_json() for layer in layers],
    }
    return Content(Manifest.of(json_bytes(document), OCI_IMAGE), (config, *layers))


async def push_image(registry: LoopbackRegistry, content: Content, tag: str = "v1") -> None:
    """Stores it as ``team/app:v1``, and forgets the requests that this took."""
    async with RemoteRegistry.connect(registry.host) as remote:
        for part in content.walk():
            for item in part.blobs:
                await remote.push_blob(repository(), item.descriptor, chunked(item.content, _CHUNK))
            await remote.push_manifest(repository(), part.manifest, tags=[Tag(tag)] if part is content else [])
    registry.forget_requests()
