"""An archive as a registry to copy to.

Law: the archive is drawn before the first byte comes: every size is known, so every blob has its place, blobs arrive
side by side, and the same image under the same name is the same archive, byte for byte. It appears under its name
whole, or not at all; a file that was there before is then replaced.

An OCI archive is an image layout in a tar. A docker archive is that with a ``manifest.json`` for ``docker load``, as
docker itself has written them since version 25: the blobs stay as they are, so digests do too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from enum import Enum

from moorage.puller.archives.contained import DOCKER_NAME
from moorage.puller.archives.names import full_name
from moorage.puller.archives.refusing import Refusing
from moorage.puller.entries import Entry, Kind, padding
from moorage.puller.errors import BadReference, ImageError
from moorage.puller.layout_files import REF_NAME
from moorage.puller.tar_writer import END_OF_ARCHIVE, encode_entry
from moorage.puller.transfer.selection import Selection
from moorage.registry.oci import (
    ANY_VALUE,
    BlobUnknown,
    Descriptor,
    Digest,
    ImageManifest,
    Manifest,
    RepositoryName,
    Tag,
    TagCondition,
    verified,
)
from moorage.registry.oci.media_types import OCI_INDEX
from moorage.registry.oci.values import dataclass

__all__ = ["ArchiveKind", "ArchiveTarget"]


class ArchiveKind(Enum):
    """The value is the prefix that people type."""

    DOCKER = "docker-archive"
    OCI = "oci-archive"


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Where everything goes. ``pieces``: what is known already, by offset; ``places``: where blobs go."""

    pieces: dict[int, bytes]
    places: dict[Digest, int]
    size: int


class ArchiveTarget(Refusing):
    """An archive that is being written. ``name``: what the image is called in it; empty for none.

    Raises:
        BadReference: docker cannot know an image by that name.
    """

    def __init__(self, path: str, kind: ArchiveKind, name: str) -> None:
        super().__init__(path)
        self._path, self._kind, self._image = path, kind, name
        self._file = -1
        self._places: dict[Digest, int] = {}
        self._written: set[Digest] = set()
        if kind is ArchiveKind.DOCKER and name and full_name(name) is None:
            raise BadReference(f"{name}: docker names images like references, with a tag")

    @asynccontextmanager
    async def receiving(self, selection: Selection) -> AsyncIterator[None]:
        """See ``engine.Expecting``: draws the archive, and publishes it when the block ends well.

        Raises:
            ImageError: an archive of this kind cannot hold this.
        """
        drawing = self._draw(selection)
        part = f"{self._path}.{secrets.token_hex(8)}.part"
        self._file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            os.truncate(self._file, drawing.size)
            for offset, piece in drawing.pieces.items():
                _write_at(self._file, piece, offset)
            self._places = drawing.places
            yield
            if missing := drawing.places.keys() - self._written:
                raise ImageError(f"{self._path}: {len(missing)} blobs did not arrive")
            await asyncio.to_thread(os.fsync, self._file)
            os.replace(part, self._path)
        finally:
            os.close(self._file)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)

    async def resolve_blob(self, repository: RepositoryName, digest: Digest, *, for_push: bool = False) -> Descriptor:
        """See ``Reader``: nothing is there before it has come."""
        raise BlobUnknown

    async def push_blob(
        self, repository: RepositoryName, descriptor: Descriptor, content: AsyncIterable[bytes]
    ) -> Descriptor:
        """See ``Writer``."""
        offset = self._places[descriptor.digest]
        async for chunk in verified(content, descriptor):
            await asyncio.to_thread(_write_at, self._file, chunk, offset)
            offset += len(chunk)
        self._written.add(descriptor.digest)
        return descriptor

    async def push_manifest(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        *,
        tags: Sequence[Tag] = (),
        condition: TagCondition = ANY_VALUE,
    ) -> Descriptor:
        """See ``Writer``. Its place was drawn with the archive."""
        return manifest.descriptor

    def _draw(self, selection: Selection) -> _Drawing:
        known = {manifest.digest: manifest.content for manifest in (*selection.others, selection.root)}
        awaited = {blob.digest: blob.size for blob in selection.blobs if blob.digest not in known}
        algorithms = sorted({digest.algorithm for digest in (*known, *awaited)})
        pieces, places, offset = dict[int, bytes](), dict[Digest, int](), 0

        def add(entry: Entry, content: bytes | None = None) -> int:
            nonlocal offset
            pieces[offset] = encode_entry(entry)
            start = offset + len(pieces[offset])
            if content:
                pieces[start] = content
            offset = start + entry.size + padding(entry.size)
            return start

        for name, content in self._documents(selection, awaited.keys()).items():
            add(Entry(name.encode(), Kind.FILE, size=len(content)), content)
        for folder in ("blobs", *(f"blobs/{algorithm}" for algorithm in algorithms)):
            add(Entry(folder.encode(), Kind.DIRECTORY, 0o755))
        for digest, content in known.items():
            add(Entry(_blob_name(digest).encode(), Kind.FILE, size=len(content)), content)
        for digest, size in awaited.items():
            places[digest] = add(Entry(_blob_name(digest).encode(), Kind.FILE, size=size))
        pieces[offset] = END_OF_ARCHIVE
        return _Drawing(pieces, places, offset + len(END_OF_ARCHIVE))

    def _documents(self, selection: Selection, blobs: Collection[Digest]) -> dict[str, bytes]:
        root, tags = selection.root, {manifest.digest: str(tag) for tag, manifest in selection.tagged.items()}
        below = {d.digest for m in (*selection.others, root) for d in m.document.manifests}
        entries = [{**root.descriptor.to_json(), **self._naming()}]
        for other in selection.others:
            if other.digest in tags:
                entries.append({**other.descriptor.to_json(), "annotations": {REF_NAME: tags[other.digest]}})
            elif other.digest not in below:
                entries.append(other.descriptor.to_json())
        documents = {
            "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
            "index.json": _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}),
        }
        if self._kind is ArchiveKind.DOCKER:
            documents["manifest.json"] = _json([self._for_docker(root, blobs)])
        return documents

    def _naming(self) -> dict[str, dict[str, str]]:
        if not self._image:
            return {}
        if self._kind is ArchiveKind.OCI:
            return {"annotations": {REF_NAME: self._image}}
        full = full_name(self._image) or ""
        return {"annotations": {DOCKER_NAME: full, REF_NAME: full.rpartition(":")[2]}}

    def _for_docker(self, root: Manifest, blobs: Collection[Digest]) -> dict[str, object]:
        image = root.document
        if not isinstance(image, ImageManifest):
            raise ImageError("a docker archive holds the image of one platform; choose one, or write an OCI archive")
        if any(layer.digest not in blobs for layer in image.layers):
            raise ImageError("a docker archive holds all layers, and some of this image are their vendor's")
        return {
            "Config": _blob_name(image.config.digest),
            "RepoTags": [full_name(self._image)] if self._image else None,
            "Layers": [_blob_name(layer.digest) for layer in image.layers],
        }


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _write_at(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        size = os.pwrite(file, view, offset)
        view, offset = view[size:], offset + size
