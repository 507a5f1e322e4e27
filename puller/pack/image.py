"""Packs a directory into an image of one layer, reproducibly: the same tree gives the same digest, anywhere, any time.

The layer holds what the directory contains; the directory's own attributes are not in it, because they describe the
packer's disk and not the image's root. Names are sorted bytewise, owners are numbers, modification times are kept to
the nanosecond and clamped to SOURCE_DATE_EPOCH where that is set; the second name of a file is a hard link.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moorage.puller.entries import Entry, Kind, padding
from moorage.puller.errors import PackError
from moorage.puller.gzip_writer import GzipWriter
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.tar_writer import END_OF_ARCHIVE, encode_entry
from moorage.registry.oci import Descriptor, Digest, Manifest, Platform
from moorage.registry.oci.media_types import OCI_CONFIG, OCI_IMAGE, OCI_LAYER_GZIP

__all__ = ["Packed", "pack_directory", "source_date_epoch"]

_NANO = 1_000_000_000
_CHUNK = 1024 * 1024
_WHITEOUT = b".wh."
_KINDS: Mapping[int, Kind] = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
}
# What the kernel or a security module derives from the place a file is in, not from the file.
_KEPT_XATTRS = ("user.", "security.capability")


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
class _Layer:
    """The archive being written."""

    write: Callable[[bytes], None]
    epoch: int | None
    first_names: dict[tuple[int, int], bytes] = field(default_factory=dict)
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


def pack_directory(source: str, files: LayoutFiles, *, platform: Platform, epoch: int | None = None) -> Packed:
    """Writes the layer and config of the directory ``source`` into ``files``; returns the manifest, not yet pushed.

    Args:
        epoch: newer modification times become this one (seconds).

    Raises:
        PackError: something in the directory has no place in a layer, or changed meanwhile.
    """
    if not os.path.isdir(source):
        raise PackError(f"{source}: not a directory")
    blob_hash, tar_hash, sizes = hashlib.sha256(), hashlib.sha256(), [0, 0]
    with files.stage_blob() as staged:

        def take_compressed(data: bytes) -> None:
            blob_hash.update(data)
            sizes[0] += len(data)
            staged.write(data)

        with GzipWriter(take_compressed) as compressor:

            def take_archive(data: bytes) -> None:
                tar_hash.update(data)
                sizes[1] += len(data)
                compressor.write(data)

            layer = _Layer(take_archive, epoch)
            _write_tree(os.fsencode(source), layer)
        blob = Descriptor(OCI_LAYER_GZIP, Digest("sha256", blob_hash.hexdigest()), sizes[0])
        staged.commit(blob.digest)
    diff_id = Digest("sha256", tar_hash.hexdigest())
    manifest = _write_manifest(files, blob, _config(diff_id, platform, layer.newest))
    return Packed(manifest, blob, diff_id, layer.entries, sizes[1], tuple(layer.skipped))


def _write_tree(root: bytes, layer: _Layer) -> None:
    for name, path in _walk(root):
        entry = _describe(name, path, layer)
        if entry is None:
            layer.skipped.append(os.fsdecode(name))
            continue
        layer.entries += 1
        layer.newest = max(layer.newest, entry.mtime)
        layer.write(encode_entry(entry))
        if entry.kind is Kind.FILE:
            _write_content(entry, path, layer.write)
    layer.write(END_OF_ARCHIVE)


def _walk(root: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and paths of everything below ``root``: parents first, siblings in byte order, no link followed."""
    waiting = [b""]
    while waiting:
        name = waiting.pop()
        path = os.path.join(root, name)
        if name:
            yield name, path
        if not name or (os.path.isdir(path) and not os.path.islink(path)):
            waiting.extend(os.path.join(name, child) for child in sorted(os.listdir(path), reverse=True))


def _describe(name: bytes, path: bytes, layer: _Layer) -> Entry | None:
    """The entry of a path; None for a socket."""
    if name.rpartition(b"/")[2].startswith(_WHITEOUT):
        raise PackError(f"{os.fsdecode(name)}: a name that begins with .wh. would delete in an image")
    info = os.lstat(path)
    kind = _KINDS.get(stat.S_IFMT(info.st_mode))
    if kind is None:
        return None
    mtime = info.st_mtime_ns if layer.epoch is None else min(info.st_mtime_ns, layer.epoch * _NANO)
    common = (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, mtime)
    if kind is Kind.FILE:
        first = layer.first_names.setdefault((info.st_dev, info.st_ino), name) if info.st_nlink > 1 else name
        if first != name:
            return Entry(name, Kind.HARD_LINK, *common, link=first)
        return Entry(name, kind, *common, size=info.st_size, xattrs=_read_xattrs(path))
    link = os.readlink(path) if kind is Kind.SYMLINK else b""
    device = (0, 0)
    if kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE):
        device = (os.major(info.st_rdev), os.minor(info.st_rdev))
    xattrs = _read_xattrs(path) if kind is Kind.DIRECTORY else {}
    return Entry(name, kind, *common, link=link, device=device, xattrs=xattrs)


def _read_xattrs(path: bytes) -> dict[bytes, bytes]:
    if not hasattr(os, "listxattr"):
        return {}
    names = [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith(_KEPT_XATTRS)]
    return {os.fsencode(name): os.getxattr(path, name, follow_symlinks=False) for name in names}


def _write_content(entry: Entry, path: bytes, write: Callable[[bytes], None]) -> None:
    left = entry.size
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0) as file:
        while left and (chunk := file.read(min(_CHUNK, left))):
            write(chunk)
            left -= len(chunk)
        if left or file.read(1):
            raise PackError(f"{os.fsdecode(entry.name)}: changed while it was read")
    write(bytes(padding(entry.size)))


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
