"""What the tree of a single layer cannot say: kept beside its content, so that merging it later is exact.

Law: all of it is in one file at the tree's root, by a name that no layer can bring (``decide`` leaves names that begin
with ``.wh..wh.`` out), so it appears and goes with the tree; where there is nothing to say, there is no file. Each line
is a JSON object: ``implicit`` is the path of a directory that no entry describes, which therefore changes nothing below
(rule 7); ``link`` is a name of the file ``to`` of a lower layer (rule 9); ``owner`` is a path with its ``uid`` and
``gid``, and ``device`` one with its ``kind``, ``major`` and ``minor``, where our rights did not allow them (rule 14).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from moorage.puller.unpack.decide import Path

__all__ = ["NOTES", "Note", "Notes", "read_notes", "write_notes"]

NOTES = b".wh..wh.moorage"
Note: TypeAlias = dict[str, str | int]


class Notes:
    """Notes by path; a path that is written again loses its own."""

    def __init__(self) -> None:
        self._notes: dict[Path, dict[str, Note]] = {}

    def add(self, path: Path, what: str, **values: str | int) -> None:
        """Notes ``what`` is to be said of ``path``."""
        self._notes.setdefault(path, {})[what] = {what: _decode(path), **values}

    def forget(self, path: Path) -> None:
        """Something else comes to ``path``."""
        if self._notes:
            self._notes.pop(path, None)

    def link_of(self, path: Path) -> str | None:
        """The file of a lower layer that ``path`` is a name of, if it is one."""
        note = self._notes.get(path, {}).get("link")
        return str(note["to"]) if note else None

    def __iter__(self) -> Iterator[tuple[Path, list[Note]]]:
        for path in sorted(self._notes):
            yield path, list(self._notes[path].values())


def write_notes(root: int, notes: Iterable[Note]) -> None:
    """Writes the file into the directory ``root``, if there is anything to say."""
    if lines := list(notes):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(NOTES, flags, 0o600, dir_fd=root), "w", encoding="ascii") as file:
            file.writelines(json.dumps(note, separators=(",", ":")) + "\n" for note in lines)


def read_notes(tree: str) -> list[Note]:
    """The notes of a layer's tree; paths are as ``os.fsdecode`` gives them."""
    try:
        with open(os.path.join(os.fsencode(tree), NOTES), encoding="ascii") as file:
            return [json.loads(line) for line in file]
    except FileNotFoundError:
        return []


def _decode(path: Path) -> str:
    return os.fsdecode(b"/".join(path))
