"""The verbs that look after the store: ``images``, ``history``, ``tag``, ``rm``, ``prune``, ``verify``."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from moorage.puller.commands.arguments import facts
from moorage.puller.errors import BadReference, ImageError
from moorage.puller.references import parse_reference
from moorage.puller.show.console import say, to_json
from moorage.puller.show.stock import history_lines, image_lines
from moorage.puller.show.text import counted, human_size, printable
from moorage.puller.stock.images import Step, StoredImage
from moorage.puller.stock.removal import Removed, Target
from moorage.puller.store import Store, default_store

__all__ = ["history", "images", "prune", "rm", "tag", "verify"]

_WIDE = 120
_AGE = re.compile(r"([0-9]{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SIZE = re.compile(r"([0-9]{1,15})(?:([kMGT])(i?)B?|B)?")
_POWERS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}


def images(store: str | None, as_json: bool) -> Iterator[str]:
    """Lists the images of the store."""
    found = _open(store).images()
    yield from (to_json(_about(image)) for image in found) if as_json else image_lines(found)


def history(reference: str, store: str | None, as_json: bool) -> Iterator[str]:
    """Shows the layers of an image and what made them."""
    found = _find(store).history(parse_reference(reference))
    if as_json:
        steps = [_step(step) for step in found.steps]
        yield to_json({"reference": found.name, **facts(found.descriptor), "platform": found.platform, "steps": steps})
    else:
        width = shutil.get_terminal_size((_WIDE, 0)).columns if sys.stdout.isatty() else _WIDE
        yield from history_lines(found, width=width)


def tag(source: str, reference: str, store: str | None, as_json: bool) -> Iterator[str]:
    """Gives an image one more name."""
    target = parse_reference(reference)
    named = _find(store).tag(parse_reference(source), target)
    yield to_json({"reference": str(target), **facts(named)}) if as_json else printable(f"{target}@{named.digest}")


def rm(targets: Sequence[str], store: str | None, as_json: bool) -> Iterator[str]:
    """Removes images."""
    removed = _find(store).remove([_target(text) for text in targets])
    yield from _removed(removed, as_json)
    if removed.is_deferred:
        say("the store is in use: what these images leave behind goes with the next prune")


def prune(older_than: str | None, max_size: str | None, store: str | None, as_json: bool) -> Iterator[str]:
    """Removes what is not needed."""
    seconds = None if older_than is None else parse_age(older_than)
    size = None if max_size is None else parse_size(max_size)
    yield from _removed(_open(store).prune(older_than=seconds, max_size=size), as_json)


def verify(mend: bool, store: str | None, as_json: bool) -> Iterator[str]:
    """Checks every byte; ends the process with status 1 where something is wrong and stays so."""
    place = _find(store)
    found = place.verify()
    for defect in found.defects:
        about = {"defect": defect.kind.value, "digest": str(defect.digest)}
        about.update(reference=defect.name, path=defect.path)
        yield to_json({key: value for key, value in about.items() if value}) if as_json else printable(str(defect))
    if found.defects and mend:
        yield from _removed(place.mend(found), as_json)
    elif found.defects:
        count = counted(len(found.defects), "defect", "defects")
        say(f"moorage: {count}; `moorage verify --mend` removes what is damaged")
        sys.exit(1)
    else:
        names, trees = counted(found.names, "name", "names"), counted(found.trees, "tree", "trees")
        blobs = f"{counted(found.blobs, 'blob', 'blobs')} ({human_size(found.size)})"
        say(f"{blobs}, {names}, {trees}: all is well")


def parse_age(text: str) -> int:
    """Seconds of ``90m``, ``12h``, ``7d``.

    Raises:
        BadReference: it is not well written.
    """
    match = _AGE.fullmatch(text)
    if match is None:
        raise BadReference(f"{text}: an age is a number with s, m, h, d or w, such as 7d")
    return int(match[1]) * _SECONDS[match[2]]


def parse_size(text: str) -> int:
    """Bytes of ``500MB``, ``5G``, ``1GiB``, ``1048576``.

    Raises:
        BadReference: it is not well written.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise BadReference(f"{text}: a size is a number of bytes, or one with kB, MB, GB or TB, such as 5GB")
    return int(match[1]) * int((1024 if match[3] else 1000) ** _POWERS[match[2] or ""])


def _open(store: str | None) -> Store:
    return Store(store or default_store())


def _find(store: str | None) -> Store:
    """The store, which is there: nothing can be said of an empty one made for a misspelt name.

    Raises:
        ImageError: it is not there.
    """
    root = store or default_store()
    try:
        os.stat(os.path.join(root, "oci-layout"))
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(f"{root}: there is no store; --store or $MOORAGE_STORE says where it is") from None
    return Store(root)


def _target(text: str) -> Target:
    """A reference, unless it is written like a digest."""
    return text if text.startswith(("sha256:", "sha512:")) else parse_reference(text)


def _removed(removed: Removed, as_json: bool) -> Iterator[str]:
    if as_json:
        counts = {"blobs": removed.blobs, "trees": removed.trees, "ingests": removed.ingests, "size": removed.size}
        yield to_json({"removed": removed.names, **counts, "deferred": removed.is_deferred})
        return
    yield from (printable(f"removed {name}") for name in removed.names)
    blobs, trees = counted(removed.blobs, "blob", "blobs"), counted(removed.trees, "tree", "trees")
    say(f"{blobs} and {trees} gone, {human_size(removed.size)} freed")


def _about(image: StoredImage) -> dict[str, Any]:
    return {
        "reference": image.name,
        **facts(image.descriptor),
        "platforms": image.platforms,
        "content": image.size,
        "shared": image.shared,
        "created": _time(image.created),
        "used": _time(image.used),
    }


def _step(step: Step) -> dict[str, Any]:
    about = {
        "created": _time(step.created),
        "createdBy": step.created_by,
        "comment": step.comment,
        "layer": facts(step.layer) if step.layer else None,
        "diffID": str(step.diff_id) if step.diff_id else None,
    }
    return {key: value for key, value in about.items() if value}


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
