"""Images of given archives, and the registry that has them."""

from __future__ import annotations

import gzip

from moorage.puller.remote import RemoteRegistry
from moorage.registry.oci import Descriptor, Digest, Tag
from moorage.registry.oci.media_types import OCI_LAYER_GZIP
from moorage.registry.testing import LoopbackRegistry

from tests.content import Blob, Content, assembled, chunked, repository

__all__ = ["image_of", "push_image"]

_CHUNK = 1024 * 1024


def image_of(*raws: bytes, compressed: tuple[bytes, ...] = (), diff_ids: tuple[Digest, ...] = ()) -> Content:
    """An image of these archives. ``compressed``: the blobs of the layers; ``diff_ids``: what the config says."""
    blobs = compressed or tuple(gzip.compress(raw, 1, mtime=0) for raw in raws)
    layers = [Blob(Descriptor(OCI_LAYER_GZIP, Digest.of(blob), len(blob)), blob) for blob in blobs]
    names = [str(digest) for digest in diff_ids or map(Digest.of, raws)]
    return assembled({"rootfs": {"type": "layers", "diff_ids": names}}, layers)


async def push_image(registry: LoopbackRegistry, content: Content, tag: str = "v1") -> None:
    """Stores it as ``team/app:v1``, and forgets the requests that this took."""
    async with RemoteRegistry.connect(registry.host) as remote:
        for part in content.walk():
            for item in part.blobs:
                await remote.push_blob(repository(), item.descriptor, chunked(item.content, _CHUNK))
            await remote.push_manifest(repository(), part.manifest, tags=[Tag(tag)] if part is content else [])
    registry.forget_requests()
