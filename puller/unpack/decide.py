"""What an entry of a layer means: pure, no file is touched.

Law: a path never leaves the root. Leading slashes and dots are dropped, ``..`` refuses the layer; link targets of
symlinks are data. Names that begin with ``.wh.`` delete from lower layers and never appear (image-spec layer.md).
"""

from __future__ import annotations

import os
from typing import TypeAlias

from moorage.puller.entries import Entry, Kind
from moorage.puller.errors import UnsafeLayer
from moorage.puller.unpack.limits import Limits
from moorage.registry.oci.values import dataclass

__all__ = [
    "OPAQUE",
    "WHITEOUT",
    "Action",
    "Hide",
    "HideChildren",
    "Link",
    "Path",
    "Put",
    "Skip",
    "decide",
    "is_reserved",
    "parse_path",
    "shown",
    "stays",
]

Path: TypeAlias = tuple[bytes, ...]
"""Components below the root; () is the root."""

WHITEOUT = b".wh."
"""What stands before a name that is gone (rule 2)."""

OPAQUE = b".wh..wh..opq"
"""A name that says: of the directory that I am in, lower layers have nothing (rule 3)."""

_LEFTOVER = b".wh..wh."


@dataclass(frozen=True, slots=True)
class Put:
    """The entry appears at ``path``."""

    path: Path
    entry: Entry


@dataclass(frozen=True, slots=True)
class Link:
    """``path`` becomes another name of the file at ``target``."""

    path: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Hide:
    """What lower layers have at ``path`` is gone."""

    path: Path


@dataclass(frozen=True, slots=True)
class HideChildren:
    """What lower layers have below ``path`` is gone."""

    path: Path


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing happens; ``reason`` says why."""

    path: Path
    reason: str


Action = Put | Link | Hide | HideChildren | Skip


def decide(entry: Entry, limits: Limits, *, keep_markers: bool = False) -> Action:
    """What to do for an entry.

    Args:
        keep_markers: the layer is unpacked by itself; its whiteouts stay, as empty files whatever they were.

    Raises:
        UnsafeLayer: its name or link leads outside, or cannot be.
    """
    path = parse_path(entry.name, limits)
    if not path:
        if entry.kind is not Kind.DIRECTORY:
            raise UnsafeLayer("an entry would replace the root")  # CVE-2021-29136
        return Put(path, entry)
    if WHITEOUT in entry.name and any(map(is_reserved, path)):
        return _decide_whiteout(path, entry, keep_markers=keep_markers)
    if entry.kind is Kind.HARD_LINK:
        target = parse_path(entry.link, limits)
        if not target:
            raise UnsafeLayer(f"{shown((entry.name,))}: a hard link to the root")
        return Link(path, target)
    if entry.kind is Kind.CHARACTER_DEVICE and entry.device == (0, 0):
        raise UnsafeLayer(f"{shown((entry.name,))}: an overlay whiteout in an archive")
    return Put(path, entry)


def parse_path(name: bytes, limits: Limits) -> Path:
    """The components of a name.

    Raises:
        UnsafeLayer: it climbs with ``..``, or is too deep or too long.
    """
    path = tuple(name.split(b"/"))
    if b"" in path or b"." in path:
        path = tuple(part for part in path if part not in (b"", b"."))
    if b".." in path:
        raise UnsafeLayer(f"{shown((name,))}: leads outside of the root")
    if len(path) > limits.depth or (len(name) > limits.component and max(map(len, path), default=0) > limits.component):
        raise UnsafeLayer(f"{shown((name,))}: too deep or too long")
    return path


def stays(entry: Entry, *, existing_is_directory: bool) -> bool:
    """Whether what exists stays and only gets the entry's attributes: a directory meeting a directory."""
    return existing_is_directory and entry.kind is Kind.DIRECTORY


def shown(path: Path) -> str:
    """A path as it may stand in a message."""
    return ascii("/".join(os.fsdecode(part) for part in path))[:300]


def is_reserved(name: bytes) -> bool:
    """Whether a name says that something is gone, so that nothing can have it (rule 5)."""
    return name.startswith(WHITEOUT)


def _decide_whiteout(path: Path, entry: Entry, *, keep_markers: bool) -> Action:
    parent, name = path[:-1], path[-1]
    if any(part.startswith(_LEFTOVER) and part != OPAQUE for part in path):
        return Skip(path, "bookkeeping of an old storage driver")
    if any(map(is_reserved, parent)):
        raise UnsafeLayer(f"{shown((entry.name,))}: a whiteout has no children")
    hidden = name.removeprefix(WHITEOUT)
    if hidden in (b"", b".", b".."):
        raise UnsafeLayer(f"{shown(path)}: a whiteout of nothing")
    if keep_markers:
        return Put(path, Entry(entry.name, Kind.FILE, 0o600, mtime=entry.mtime))
    return HideChildren(parent) if name == OPAQUE else Hide((*parent, hidden))
