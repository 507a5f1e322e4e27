"""Layers from a few words, hostile ones included, and what is on disk after they were unpacked."""

from __future__ import annotations

import gzip
import io
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import zstandard
from moorage.puller.entries import Entry, Kind, padding
from moorage.puller.tar_writer import END_OF_ARCHIVE, encode_entry
from moorage.puller.unpack.apply import Layer, Unpacked, unpack_layers
from moorage.puller.unpack.limits import Limits
from moorage.registry.oci import Descriptor, Digest
from moorage.registry.oci.media_types import OCI_LAYER

__all__ = [
    "archive", "directory", "file", "fix_sum", "hard_link", "layer_of", "node", "pax", "seen", "symlink", "unpack",
]  # fmt: skip

Member = tuple[Entry, bytes]
_MTIME = 1_600_000_000 * 10**9
_UID, _GID = os.geteuid(), os.getegid()


def file(
    name: str | bytes, content: bytes = b"x", *, mode: int = 0o644, xattrs: Mapping[bytes, bytes] | None = None
) -> Member:
    """A regular file."""
    raw = os.fsencode(name)
    return Entry(raw, Kind.FILE, mode, _UID, _GID, _MTIME, len(content), xattrs=xattrs or {}), content


def directory(name: str | bytes, *, mode: int = 0o755) -> Member:
    """A directory."""
    return Entry(os.fsencode(name), Kind.DIRECTORY, mode, _UID, _GID, _MTIME), b""


def symlink(name: str | bytes, target: str | bytes) -> Member:
    """A symbolic link."""
    return Entry(os.fsencode(name), Kind.SYMLINK, 0o777, _UID, _GID, _MTIME, link=os.fsencode(target)), b""


def hard_link(name: str | bytes, target: str | bytes) -> Member:
    """Another name of a file."""
    return Entry(os.fsencode(name), Kind.HARD_LINK, 0o644, _UID, _GID, _MTIME, link=os.fsencode(target)), b""


def node(name: str, kind: Kind, device: tuple[int, int] = (0, 0)) -> Member:
    """A device or FIFO."""
    return Entry(os.fsencode(name), kind, 0o600, _UID, _GID, _MTIME, device=device), b""


def archive(*members: Member, end: bytes = END_OF_ARCHIVE) -> bytes:
    """The members as an archive."""
    return b"".join(encode_entry(e) + content + bytes(padding(len(content))) for e, content in members) + end


def fix_sum(block: bytearray) -> None:
    """Makes the checksum of a header block right."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)


def pax(records: Sequence[tuple[bytes, bytes]], flag: bytes = b"x") -> bytes:
    """An extended header with these records, as they are."""
    body = b""
    for key, value in records:
        rest = len(key) + len(value) + 3
        length = rest + len(str(rest + len(str(rest))))
        body += b"%d %s=%s\n" % (length, key, value)
    block = bytearray(encode_entry(Entry(b"pax", Kind.FILE, size=len(body))))
    block[156:157] = flag
    fix_sum(block)
    return bytes(block) + body + bytes(padding(len(body)))


def layer_of(raw: bytes, compression: str = "none") -> Layer:
    """A layer whose uncompressed archive is ``raw``."""
    blob = raw
    if compression == "gzip":
        blob = gzip.compress(raw, mtime=0)
    elif compression == "zstd":
        blob = zstandard.ZstdCompressor().compress(raw)
    return Layer(Descriptor(OCI_LAYER, Digest.of(blob), len(blob)), Digest.of(raw), lambda: io.BytesIO(blob))


def unpack(target: Path, *layers: tuple[Member, ...] | bytes, limits: Limits | None = None) -> Unpacked:
    """Unpacks layers given as members or as raw archives."""
    raws = [layer if isinstance(layer, bytes) else archive(*layer) for layer in layers]
    return unpack_layers([layer_of(raw) for raw in raws], str(target), limits=limits)


def seen(root: Path) -> dict[str, str]:
    """Every path below ``root``: ``dir MODE``, ``file MODE CONTENT``, ``-> TARGET`` or another kind's letter."""
    return dict(_describe_all(root))


def _describe_all(root: Path) -> Iterator[tuple[str, str]]:
    for folder, folders, files in os.walk(root):
        for name in sorted((*folders, *files)):
            path = Path(folder, name)
            info = path.lstat()
            mode = f"{stat.S_IMODE(info.st_mode):04o}"
            if path.is_symlink():
                text = f"-> {os.readlink(path)}"
            elif path.is_dir():
                text = f"dir {mode}"
            elif path.is_file():
                text = f"file {mode} {path.read_bytes().decode('latin-1')}"
            else:
                text = stat.filemode(info.st_mode)[0]
            yield str(path.relative_to(root)), text
