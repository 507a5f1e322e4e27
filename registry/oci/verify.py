"""Streams that verify themselves.

Rule: whoever reads a verified stream to its end has read exactly the content that the descriptor names; if the bytes
differ, the stream raises before its last chunk is released, so a transfer can never end well with wrong bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

from moorage.registry.oci.descriptor import Descriptor
from moorage.registry.oci.errors import DigestMismatch, ManifestTooLarge, SizeInvalid

__all__ = ["read_limited", "verified"]


async def verified(chunks: AsyncIterable[bytes], descriptor: Descriptor) -> AsyncIterator[bytes]:
    """``chunks``, checked against the descriptor's size and digest. The last chunk is held back until they hold.

    Raises:
        SizeInvalid: more or fewer bytes than ``descriptor.size``.
        DigestMismatch: the bytes have another digest.
    """
    hasher, size, held = descriptor.digest.hasher(), 0, b""
    async for chunk in chunks:
        size += len(chunk)
        if size > descriptor.size:
            raise SizeInvalid("content is longer than its descriptor says", detail=_detail(descriptor, size))
        hasher.update(chunk)
        if held:
            yield held
        held = chunk
    if size != descriptor.size:
        raise SizeInvalid("content is shorter than its descriptor says", detail=_detail(descriptor, size))
    if hasher.hexdigest() != descriptor.digest.hex:
        raise DigestMismatch(detail=_detail(descriptor, size))
    if held:
        yield held


async def read_limited(chunks: AsyncIterable[bytes], limit: int) -> bytes:
    """All of ``chunks``, at most ``limit`` bytes.

    Raises:
        ManifestTooLarge: there is more.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            raise ManifestTooLarge(f"more than {limit} bytes", detail={"limit": limit})
    return bytes(body)


def _detail(descriptor: Descriptor, size: int) -> dict[str, object]:
    return {"digest": str(descriptor.digest), "size": descriptor.size, "received": size}
