"""Brings single blobs from a source to a destination.

Law: nothing that the destination has is sent; what another repository of its registry has is mounted; the rest is sent,
by several uploads at a time (``turns``). The destination verifies every blob.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from moorage.puller.errors import ImageError
from moorage.puller.events import BlobDone, BlobSkipped, BlobStarted, OnEvent, Retried
from moorage.puller.remote import RemoteRegistry
from moorage.puller.transfer.contents import FileContent, Meter, StreamContent, content_of
from moorage.puller.transfer.graph import Place
from moorage.puller.transfer.known import Known
from moorage.puller.transfer.results import Action, BlobResult
from moorage.puller.transfer.turns import Turns
from moorage.registry.oci import (
    BlobUnknown,
    Descriptor,
    DigestInvalid,
    RepositoryName,
    SizeInvalid,
    Unavailable,
    Unsupported,
)
from moorage.registry.oci.values import dataclass, field

if TYPE_CHECKING:
    from moorage.puller.fetch.engine import Fetcher

__all__ = ["Carrier"]

_ATTEMPTS = 3
_RETRY_DELAY = 1.0


@dataclass(frozen=True, slots=True)
class Carrier:
    """Moves blobs. Its ``carry`` may run for many blobs at once; uploads are limited here."""

    source: Place
    destination: Place
    known: Known
    on_event: OnEvent
    fetcher: Fetcher | None = None
    _turns: Turns = field(default_factory=Turns)

    async def carry(self, blob: Descriptor) -> BlobResult:
        """The blob is at the destination when this returns."""
        if await self.exists(blob):
            self.on_event(BlobSkipped(blob, "exists"))
            return BlobResult(blob, "exists")
        if self.fetcher is not None:
            return await _fetch(self.fetcher, blob)
        async with self._turns.turn(blob):
            began = time.monotonic()
            meter = Meter(blob, self.on_event)
            action, origin = await self._bring(blob, meter)
            if action == "mounted":
                self.on_event(BlobSkipped(blob, "mounted"))
            else:
                meter.flush()
                self.on_event(BlobDone(blob))
            return BlobResult(blob, action, meter.moved, time.monotonic() - began, str(origin) if origin else None)

    async def exists(self, blob: Descriptor) -> bool:
        """Whether the destination has the blob and lets us rely on it."""
        try:
            await self.destination.registry.resolve_blob(self.destination.repository, blob.digest, for_push=True)
        except BlobUnknown:
            return False
        return True

    async def _bring(self, blob: Descriptor, meter: Meter) -> tuple[Action, RepositoryName | None]:
        registry = self.destination.registry
        homes = await self.known.homes(blob.digest)
        if isinstance(registry, RemoteRegistry):
            upload = registry.upload(self.destination.repository, blob)
            mount = await upload.mount(homes)
            if mount.done:
                return "mounted", mount.source
            self.on_event(BlobStarted(blob))
            content = await content_of(self.source, blob, meter)
            try:
                await upload.send(content, meter)
            except (DigestInvalid, SizeInvalid) as exc:
                raise await _blamed(exc, content, blob) from exc
            return "moved", None
        for home in homes:
            if await self._is_mounted(blob, home):
                return "mounted", home
        await self._write(blob, meter)
        return "moved", None

    async def _is_mounted(self, blob: Descriptor, home: RepositoryName) -> bool:
        try:
            await self.destination.registry.mount_blob(self.destination.repository, blob.digest, source=home)
        except (BlobUnknown, Unsupported):
            return False
        return True

    async def _write(self, blob: Descriptor, meter: Meter) -> None:
        """Brings the bytes to a destination on this machine; after a broken connection from the start again."""
        for attempt in range(1, _ATTEMPTS + 1):
            self.on_event(BlobStarted(blob))
            try:
                content = await content_of(self.source, blob, meter)
                async with aclosing(content.stream()) as chunks:
                    await self.destination.registry.push_blob(self.destination.repository, blob, chunks)
            except Unavailable as exc:
                if attempt == _ATTEMPTS:
                    raise
                self.on_event(Retried(blob, exc.message, _RETRY_DELAY * attempt))
                await asyncio.sleep(_RETRY_DELAY * attempt)
            else:
                return


async def _fetch(fetcher: Fetcher, blob: Descriptor) -> BlobResult:
    """A layout is filled as the store is: in ranges, resumed, hashed once, shared with other processes."""
    fetched = await fetcher.fetch(blob)
    action: Action = "exists" if fetched.source == "cached" else "moved"
    return BlobResult(blob, action, fetched.fetched, fetched.seconds)


async def _blamed(
    refusal: DigestInvalid | SizeInvalid, content: FileContent | StreamContent, blob: Descriptor
) -> Exception:
    """Whose fault it is that the registry did not find the digest."""
    if isinstance(content, FileContent) and await asyncio.to_thread(content.is_damaged, blob.digest):
        return ImageError(f"{content}: the blob {blob.digest} is damaged here; it was not stored there")
    return refusal
