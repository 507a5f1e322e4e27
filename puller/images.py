"""An image in a registry or a layout, to look into without pulling it.

Law: the manifest's bytes are the truth and stay as they came. Manifest and config are read when the image is asked for,
a layer's bytes when they are; nobody sees a byte of a layer before its size and digest (uncompressed: its diffID) held.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import IO, Any, BinaryIO, cast

from moorage.puller.entries import Entry
from moorage.puller.errors import ImageError
from moorage.puller.stock.graph import StoredManifest
from moorage.puller.stock.images import Step, steps_of
from moorage.puller.threads import in_thread
from moorage.puller.transfer import Place, find_image
from moorage.puller.unpack.layer import Layer
from moorage.puller.unpack.limits import Limits
from moorage.puller.unpack.source import TarReader
from moorage.puller.unpack.stages import Archive
from moorage.registry.oci import (
    MANIFEST_LIMIT,
    Descriptor,
    Digest,
    ImageIndex,
    ImageManifest,
    Manifest,
    ManifestInvalid,
    Platform,
    TagOrDigest,
    parse_json,
    read_limited,
    verified,
)
from moorage.registry.oci.values import dataclass

__all__ = ["Image", "ImageLayer", "open_image"]


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """A layer where it is. ``diff_id``: of its uncompressed archive, None for an artifact's."""

    place: Place
    descriptor: Descriptor
    diff_id: Digest | None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[BinaryIO]:
        """The blob as it is stored, in a temporary file that is at its start.

        Raises:
            BlobUnknown: it is not there.
            DigestMismatch, SizeInvalid: it is not what the manifest names.
        """
        with tempfile.TemporaryFile(prefix="moorage-") as file:
            await self._fetch(file)
            file.seek(0)
            yield cast(BinaryIO, file)

    @asynccontextmanager
    async def uncompressed(self) -> AsyncIterator[BinaryIO]:
        """Its tar archive, in a temporary file that is at its start.

        Raises:
            BlobUnknown, DigestMismatch, SizeInvalid: see ``open``.
            BrokenLayer: the archive is damaged, or not the one that the config names.
            UnsafeLayer: it becomes larger than any layer may.
            ImageError: it is no layer of a container image.
        """
        with tempfile.TemporaryFile(prefix="moorage-") as blob, tempfile.TemporaryFile(prefix="moorage-") as archive:
            layer = await self._fetch_layer(blob)
            await in_thread(partial(_inflate, layer, archive))
            archive.seek(0)
            yield cast(BinaryIO, archive)

    async def files(self) -> list[Entry]:
        """The entries of its archive, in order, whiteouts among them.

        Raises:
            BlobUnknown, DigestMismatch, SizeInvalid, BrokenLayer, UnsafeLayer, ImageError: see ``uncompressed``.
        """
        with tempfile.TemporaryFile(prefix="moorage-") as blob:
            layer = await self._fetch_layer(blob)
            return await in_thread(partial(_list, layer))

    async def _fetch(self, file: IO[bytes]) -> None:
        async with self.place.registry.read_blob(self.place.repository, self.descriptor.digest) as stream:
            async for chunk in verified(stream, self.descriptor):
                file.write(chunk)

    async def _fetch_layer(self, file: IO[bytes]) -> Layer:
        if self.diff_id is None:
            raise ImageError(f"{self.descriptor.digest}: not a layer of a container image")
        await self._fetch(file)
        file.seek(0)
        return Layer(self.descriptor, self.diff_id, partial(_reopen, file))


@dataclass(frozen=True, slots=True)
class Image:
    """An image, an artifact, or an index that no platform was chosen from. ``config``: empty where it is not JSON."""

    place: Place
    reference: str
    manifest: Manifest
    config: Mapping[str, Any]

    @property
    def descriptor(self) -> Descriptor:
        """Of the manifest."""
        return self.manifest.descriptor

    @property
    def digest(self) -> Digest:
        """Of the manifest."""
        return self.manifest.digest

    @property
    def document(self) -> ImageManifest | ImageIndex:
        """The manifest, parsed."""
        return self.manifest.document

    @property
    def layers(self) -> tuple[ImageLayer, ...]:
        """The layers, lowest first; none of an index."""
        if not isinstance(self.document, ImageManifest):
            return ()
        layers, known = self.document.layers, self._stored(self.document).diff_ids
        diff_ids: list[Digest | None] = [*known] if len(known) == len(layers) else [None] * len(layers)
        return tuple(ImageLayer(self.place, layer, diff_id) for layer, diff_id in zip(layers, diff_ids, strict=True))

    @property
    def history(self) -> tuple[Step, ...]:
        """How it was made, oldest step first."""
        return tuple(steps_of(self._stored(self.document))) if isinstance(self.document, ImageManifest) else ()

    def _stored(self, document: ImageManifest) -> StoredManifest:
        return StoredManifest(self.descriptor, document, self.config)


async def open_image(name: str, place: Place, target: TagOrDigest, platform: Platform | None) -> Image:
    """Reads manifest and config.

    Args:
        platform: chooses from an index; None: the index itself.

    Raises:
        ManifestUnknown: there is no such image.
        NoMatchingPlatform: the index has none for ``platform``.
    """
    manifest = await find_image(place, target, platform)
    document = manifest.document
    config = await _read_config(place, document) if isinstance(document, ImageManifest) else {}
    return Image(place, name, manifest, config)


async def _read_config(place: Place, image: ImageManifest) -> Mapping[str, Any]:
    if not image.config.media_type.endswith("json") or image.config.size > MANIFEST_LIMIT:
        return {}
    async with place.registry.read_blob(place.repository, image.config.digest) as stream:
        content = await read_limited(stream, MANIFEST_LIMIT)
    try:
        config = parse_json(content)
    except ManifestInvalid:
        return {}  # an artifact may have anything for a config
    return config if isinstance(config, dict) else {}


def _reopen(file: IO[bytes]) -> BinaryIO:
    """The same file under a descriptor of its own, because who reads a layer closes it."""
    return open(file.fileno(), "rb", closefd=False)


def _inflate(layer: Layer, out: IO[bytes]) -> None:
    with _archive(layer) as archive:
        for chunk in archive:
            out.write(chunk)
        archive.check()


def _list(layer: Layer) -> list[Entry]:
    with _archive(layer) as archive:
        entries = list(TarReader(iter(archive), Limits()))
        archive.check()
        return entries


def _archive(layer: Layer) -> Archive:
    return Archive(layer, limit=Limits().of_archive(layer.descriptor.size))
