"""The files of an OCI image layout: ``oci-layout``, ``index.json``, ``blobs/<alg>/<hex>``.

Ours beside them: ``ingests/`` (content that another run may go on with), ``staging/`` and ``unsynced/``.
Law: a blob appears under its digest only whole and verified, and on the disk or noted as not yet there (``unsynced``);
``index.json`` changes only under the lock on the root directory and is replaced in one step. Both survive a power cut:
a blob that is in doubt after one is hashed before anybody hears that it is there. This module blocks; call it in a
thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn

from moorage.puller.errors import LayoutInvalid
from moorage.puller.staging import StagedFile, sync_directory
from moorage.puller.unsynced import Unsynced
from moorage.registry.oci import BlobUnknown, Descriptor, Digest, ManifestInvalid, parse_json
from moorage.registry.oci.media_types import OCI_INDEX
from moorage.registry.oci.values import dataclass

__all__ = ["REF_NAME", "Entry", "LayoutFiles", "NamesOfNow"]

REF_NAME = "org.opencontainers.image.ref.name"
_MARKER = {"imageLayoutVersion": "1.0.0"}
_EMPTY_INDEX = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of ``index.json``: what it points at, and the name it has, if any."""

    descriptor: Descriptor
    ref_name: str | None

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this entry."""
        annotations = {key: value for key, value in (self.descriptor.annotations or {}).items() if key != REF_NAME}
        if self.ref_name is not None:
            annotations[REF_NAME] = self.ref_name
        return {**self.descriptor.to_json(), **({"annotations": annotations} if annotations else {})}


class LayoutFiles:
    """A layout directory; created when ``create`` is given, otherwise it must be there.

    Raises:
        LayoutInvalid: it is not a layout of a version we know.
    """

    def __init__(self, root: str, *, create: bool = False) -> None:
        self.root = root
        self._marker, self._index = os.path.join(root, "oci-layout"), os.path.join(root, "index.json")
        self._ingests = os.path.join(root, "ingests")
        self.unsynced = Unsynced(root)
        if create and not os.path.exists(self._marker):
            self._create()
        marker = self._read_json(self._marker)
        if not isinstance(marker, dict) or marker.get("imageLayoutVersion") != _MARKER["imageLayoutVersion"]:
            raise LayoutInvalid(f"{root}: unknown version of the image layout")

    def __repr__(self) -> str:
        return f"<LayoutFiles {self.root!r}>"

    def blob_path(self, digest: Digest) -> str:
        """Where the blob is, or would be."""
        return os.path.join(self.root, "blobs", digest.algorithm, digest.hex)

    def stat_blob(self, digest: Digest) -> int:
        """The blob's size in bytes.

        Raises:
            BlobUnknown: the layout does not hold it.
        """
        self._settle_doubt(digest)
        try:
            return os.stat(self.blob_path(digest)).st_size
        except FileNotFoundError:
            raise BlobUnknown(detail={"digest": str(digest)}) from None

    def has_blob(self, digest: Digest) -> bool:
        """Whether the layout holds the blob."""
        self._settle_doubt(digest)
        return os.path.exists(self.blob_path(digest))

    def open_blob(self, digest: Digest) -> BinaryIO:
        """The blob's bytes, unbuffered.

        Raises:
            BlobUnknown: the layout does not hold it.
        """
        self._settle_doubt(digest)
        try:
            return open(self.blob_path(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise BlobUnknown(detail={"digest": str(digest)}) from None

    def write_blob(self, content: bytes) -> Digest:
        """Stores ``content`` as a blob."""
        digest = Digest.of(content)
        self.place_blob(content, digest)
        return digest

    def place_blob(self, content: bytes, digest: Digest) -> None:
        """Stores ``content``, whose digest has been checked to be ``digest``."""
        if not self.has_blob(digest):
            with self.stage_blob() as staged:
                staged.write(content)
                staged.commit(digest)

    def delete_blob(self, digest: Digest) -> None:
        """Removes the blob's file.

        Raises:
            BlobUnknown: the layout does not hold it.
        """
        try:
            os.unlink(self.blob_path(digest))
        except FileNotFoundError:
            raise BlobUnknown(detail={"digest": str(digest)}) from None
        sync_directory(os.path.dirname(self.blob_path(digest)))

    def ingest_path(self, name: str) -> str:
        """A path for unfinished content called ``name``."""
        os.makedirs(self._ingests, exist_ok=True)
        return os.path.join(self._ingests, name)

    @contextmanager
    def stage_blob(self) -> Iterator[StagedBlob]:
        """A blob being written; what was not committed when the block ends is dropped."""
        staged = StagedBlob(self)
        try:
            yield staged
        finally:
            staged.discard()

    def publish(self, path: str, digest: Digest, *, synced: bool = True) -> None:
        """Makes the verified file at ``path`` the blob ``digest``.

        Args:
            synced: the file is on the disk, and its name shall be on return. Otherwise ``unsynced`` was told before.
        """
        final = self.blob_path(digest)
        _make_directories(os.path.dirname(final), self.root)
        os.replace(path, final)
        if synced:
            sync_directory(os.path.dirname(final))
        self.unsynced.renewed_blob(digest)

    def read_index(self) -> list[Entry]:
        """The entries of ``index.json``, in order.

        Raises:
            LayoutInvalid: it cannot be read.
        """
        document = self._read_json(self._index)
        try:
            return [_parse_entry(raw, number) for number, raw in enumerate(document["manifests"] or ())]
        except (TypeError, KeyError, ManifestInvalid) as exc:
            raise LayoutInvalid(f"{self._index}: {exc}") from exc

    @contextmanager
    def edit_index(self) -> Iterator[list[Entry]]:
        """The entries, to be changed in place; saved when the block ends without an error, nobody else in between."""
        with self._locked():
            before = self.read_index()
            entries = list(before)
            yield entries
            if entries != before:
                document = {**self._read_json(self._index), "manifests": [entry.to_json() for entry in entries]}
                self._write_file(self._index, document)

    def _settle_doubt(self, digest: Digest) -> None:
        """A blob that a power cut may have damaged is hashed, and removed if it was."""
        if not self.unsynced.is_doubtful_blob(digest):
            return
        path = self.blob_path(digest)
        with contextlib.suppress(FileNotFoundError), open(path, "rb", buffering=0) as file:
            hasher = digest.hasher()
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
            if hasher.hexdigest() == digest.hex:
                os.fsync(file.fileno())
                sync_directory(os.path.dirname(path))
            elif os.path.samestat(os.stat(path), os.fstat(file.fileno())):  # nobody published it anew meanwhile
                os.unlink(path)
        self.unsynced.renewed_blob(digest)

    def _create(self) -> None:
        _make_directories(os.path.join(self.root, "blobs", "sha256"), None)
        with self._locked():
            if not os.path.exists(self._index):
                self._write_file(self._index, _EMPTY_INDEX)
            if not os.path.exists(self._marker):
                self._write_file(self._marker, _MARKER)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write_file(self, path: str, document: object) -> None:
        """Replaces the file in one step, durably."""
        staged = StagedFile(self.root)
        try:
            staged.write(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())
            staged.sync()
            staged.appear(path)
        finally:
            staged.discard()
        sync_directory(self.root)

    def _read_json(self, path: str) -> Any:
        try:
            with open(path, "rb") as file:
                return parse_json(file.read())
        except (OSError, ManifestInvalid) as exc:
            raise LayoutInvalid(f"{self.root}: not an image layout ({path}: {exc})") from exc


class NamesOfNow(LayoutFiles):
    """A layout for reading, with the names that it has at this moment, whatever happens to them afterwards."""

    def __init__(self, files: LayoutFiles) -> None:
        super().__init__(files.root)
        self._entries = files.read_index()

    def read_index(self) -> list[Entry]:
        """The entries of the moment."""
        return list(self._entries)

    def edit_index(self) -> NoReturn:
        """There is nothing to change."""
        raise LayoutInvalid(f"{self.root}: names of the past cannot be changed")


class StagedBlob(StagedFile):
    """A blob on its way into a layout."""

    def __init__(self, files: LayoutFiles) -> None:
        super().__init__(files.root)
        self._files = files

    def commit(self, digest: Digest) -> None:
        """Makes it the blob ``digest``, which its bytes were checked to have; on return it is on the disk."""
        self.sync()
        final = self._files.blob_path(digest)
        _make_directories(os.path.dirname(final), self._files.root)
        self.appear(final)
        sync_directory(os.path.dirname(final))
        self._files.unsynced.renewed_blob(digest)


def _parse_entry(raw: Mapping[str, Any], number: int) -> Entry:
    descriptor = Descriptor.from_json(raw, field=f"manifests[{number}]")
    return Entry(descriptor, (descriptor.annotations or {}).get(REF_NAME))


def _make_directories(path: str, stop: str | None) -> None:
    """Makes the directory and those above it, each durable in its parent."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(os.path.abspath(path))
    if parent != stop:
        _make_directories(parent, stop)
    os.makedirs(path, exist_ok=True)
    sync_directory(parent)
