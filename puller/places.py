"""Where images are, as people type it: a reference, or ``oci:DIR`` and ``oci:DIR:NAME`` for an OCI image layout."""

from __future__ import annotations

import os
from dataclasses import dataclass

from moorage.puller.connections import Connections
from moorage.puller.errors import ImageError
from moorage.puller.layout import ImageLayout
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.references import parse_reference, parse_target
from moorage.puller.transfer import Place
from moorage.registry.oci import RepositoryName, Tag, TagOrDigest

__all__ = ["Spot", "find_spot", "is_layout", "parse_layout"]

_PREFIX = "oci:"
_THE_REPOSITORY = RepositoryName("layout")


@dataclass(frozen=True, slots=True)
class Spot:
    """One image, or where to put one. ``target``: its tag or digest. ``name``: to show."""

    place: Place
    target: TagOrDigest
    name: str

    @property
    def tags(self) -> list[Tag]:
        """What to tag there."""
        return [self.target] if isinstance(self.target, Tag) else []


async def find_spot(connections: Connections, text: str, *, create: bool = False) -> Spot:
    """The place that ``text`` means.

    Args:
        create: a layout that does not exist is made.

    Raises:
        BadReference: it is not well written.
        LayoutInvalid: the directory is no layout.
    """
    if text.startswith(_PREFIX):
        return parse_layout(text.removeprefix(_PREFIX), create=create)
    reference = parse_reference(text)
    place = Place(await connections.remote(reference.registry), reference.repository)
    return Spot(place, reference.target, str(reference))


def is_layout(path: str) -> bool:
    """Whether the directory is an OCI image layout."""
    return os.path.isfile(os.path.join(path, "oci-layout"))


def parse_layout(text: str, *, create: bool = False) -> Spot:
    """The image in a layout: ``DIR:NAME``, or ``DIR`` if it holds one image only.

    Raises:
        ImageError: it holds several, or none.
        LayoutInvalid: it is no layout.
    """
    path, _, name = text.partition(":")
    files = LayoutFiles(path, create=create)
    if not name:
        entries = files.read_index()
        if len(entries) != 1:
            names = ", ".join(entry.ref_name or str(entry.descriptor.digest) for entry in entries)
            raise ImageError(f"{path}: say which image, {path}:NAME (it holds {names or 'none'})")
        name = entries[0].ref_name or str(entries[0].descriptor.digest)
    if "/" in name:
        reference = parse_reference(name)
        view = ImageLayout.of_registry(files, reference.registry)
        return Spot(Place(view, reference.repository), reference.target, f"{path}:{name}")
    view = ImageLayout.of_tags(files, _THE_REPOSITORY)
    return Spot(Place(view, _THE_REPOSITORY), parse_target(name), f"{path}:{name}")
