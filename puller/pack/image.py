"""Packs a directory into an image of one layer, reproducibly: the same tree gives the same digest, anywhere, any time.

The layer holds what the directory contains; the directory's own attributes are not in it, because they describe the
packer's disk and not the image's root. Modification times are kept to the nanosecond and clamped to SOURCE_DATE_EPOCH
where that is set (newer ones only).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from moorage.puller.entries import Kind, padding
from moorage.puller.errors import PackError
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.pack.options import PackOptions
from moorage.puller.pack.tree import TreeEntry, read_tree
from moorage.puller.tar_writer import END_OF_ARCHIVE, encode_entry
from moorage.registry.oci import Descriptor, Digest, Manifest, Platform
from moorage.registry.oci.media_types import OCI_CONFIG, OCI_IMAGE
from moorage.registry.oci.values import dataclass, field

__all__ = ["Packed", "pack_directory", "source_date_epoch"]

_NANO = 1_000_000_000
_CHUNK = 1024 * 1024
_DEFAULTS = PackOptions()


@dataclass(frozen=True, slots=True)
class Packed:
    """An image made from a directory. ``size``: bytes of the uncompressed layer; ``skipped``: sockets, left out."""

    manifest: Manifest
    layer: Descriptor
    diff_id: Digest
    entries: int
    size: int
    skipped: tuple[str, ...]


@dataclass(slots=True)
class _Meter:
    """Hashes and counts what passes."""

    sink: Callable[[bytes], None]
    hasher: Any = field(default_factory=hashlib.sha256)
    size: int = 0

    def __call__(self, data: bytes) -> None:
        self.hasher.update(data)
        self.size += len(data)
        self.sink(data)

    @property
    def digest(self) -> Digest:
        return Digest("sha256", self.hasher.hexdigest())


@dataclass(slots=True)
class _Layer:
    """The archive being written."""

    write: Callable[[bytes], None]
    skipped: list[str] = field(default_factory=list)
    entries: int = 0
    newest: int = 0


def source_date_epoch() -> int | None:
    """The time that builds must not exceed, in seconds, from the environment (reproducible-builds.org).

    Raises:
        PackError: it is not a number.
    """
    raw = os.environ.get("SOURCE_DATE_EPOCH", "")
    if raw and not (raw.isascii() and raw.isdigit() and len(raw) < 12):
        raise PackError(f"SOURCE_DATE_EPOCH is not a number of seconds: {raw[:64]!r}")
    return int(raw) if raw else None


def pack_directory(
    source: str,
    files: LayoutFiles,
    *,
    platform: Platform,
    epoch: int | None = None,
    options: PackOptions = _DEFAULTS,
) -> Packed:
    """Writes the layer and config of the directory ``source`` into ``files``; returns the manifest, not yet pushed.

    Args:
        epoch: newer modification times become this one (seconds).

    Raises:
        PackError: something in the directory has no place in a layer, or changed meanwhile.
        OSError: something cannot be read.
    """
    if not os.path.isdir(source):
        raise PackError(f"{source}: not a directory")
    _check_apart(source, files, options)
    with files.stage_blob() as staged:
        blob = _Meter(staged.write)
        with options.compression.writer(blob) as compressor:
            archive = _Meter(compressor.write)
            layer = _Layer(archive)
            _write_tree(os.fsencode(source), layer, options, epoch)
        descriptor = Descriptor(options.compression.media_type, blob.digest, blob.size)
        staged.commit(descriptor.digest)
    manifest = _write_manifest(files, descriptor, _config(archive.digest, platform, layer.newest))
    return Packed(manifest, descriptor, archive.digest, layer.entries, archive.size, tuple(layer.skipped))


def _check_apart(source: str, files: LayoutFiles, options: PackOptions) -> None:
    """Refuses to pack what is being written."""
    inside = os.path.relpath(os.path.realpath(files.root), os.path.realpath(source))
    if inside.split(os.sep)[0] != os.pardir and not options.ignore.leaves_out(os.fsencode(inside)):
        raise PackError(f"{source}: holds the store itself ({files.root}); leave it out, or choose another store")


def _write_tree(root: bytes, layer: _Layer, options: PackOptions, epoch: int | None) -> None:
    for item in read_tree(root, options, epoch, layer.skipped):
        layer.entries += 1
        layer.newest = max(layer.newest, item.entry.mtime)
        layer.write(encode_entry(item.entry))
        if item.entry.kind is Kind.FILE:
            _write_content(item, layer.write)
    layer.write(END_OF_ARCHIVE)


def _write_content(item: TreeEntry, write: Callable[[bytes], None]) -> None:
    left = item.entry.size
    with item.open() as file:
        while left and (chunk := file.read(min(_CHUNK, left))):
            write(chunk)
            left -= len(chunk)
        if left or file.read(1):
            raise PackError(f"{os.fsdecode(item.entry.name)}: changed while it was read")
    write(bytes(padding(item.entry.size)))


def _config(diff_id: Digest, platform: Platform, newest: int) -> bytes:
    created = datetime.fromtimestamp(newest // _NANO, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = {
        "created": created,
        **{key: value for key, value in platform.to_json().items() if key in ("architecture", "os", "variant")},
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(diff_id)]},
        "history": [{"created": created, "created_by": "moorage push"}],
    }
    return _to_json(document)


def _write_manifest(files: LayoutFiles, layer: Descriptor, config: bytes) -> Manifest:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": Descriptor(OCI_CONFIG, files.write_blob(config), len(config)).to_json(),
        "layers": [layer.to_json()],
    }
    return Manifest.of(_to_json(document), OCI_IMAGE)


def _to_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
