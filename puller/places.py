"""Where images are, as people type it.

alpine, host:5000/team/app:v1      a registry
store:REFERENCE                    the store
oci:DIR, oci:DIR:NAME              an OCI image layout
docker-archive:FILE[:NAME]         what ``docker save`` writes
oci-archive:FILE[:NAME]            an OCI image layout in one file
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial

from moorage.puller.archives.refusing import Nothing
from moorage.puller.connections import Connections
from moorage.puller.errors import BadReference, ImageError
from moorage.puller.layout import ImageLayout
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.references import parse_reference, parse_target
from moorage.puller.store import Store
from moorage.puller.threads import in_thread
from moorage.puller.transfer import Place
from moorage.registry.oci import ManifestUnknown, RepositoryName, Tag, TagOrDigest
from moorage.registry.oci.values import dataclass

__all__ = [
    "Spot",
    "find_spot",
    "is_archive",
    "is_layout",
    "is_local",
    "open_archive",
    "open_spot",
    "parse_layout",
    "plan_spot",
]

_PREFIX = "oci:"
_ARCHIVES = frozenset({"docker-archive", "oci-archive"})
_THE_REPOSITORY = RepositoryName("layout")


@dataclass(frozen=True, slots=True)
class Spot:
    """One image, or where to put one.

    ``target``: its tag or digest. ``name``: to show. ``host``: of a registry. ``remark``: what people should know.
    """

    place: Place
    target: TagOrDigest
    name: str
    host: str = ""
    remark: str = ""

    @property
    def tags(self) -> list[Tag]:
        """What to tag there."""
        return [self.target] if isinstance(self.target, Tag) else []


@asynccontextmanager
async def open_spot(
    connections: Connections, text: str, *, store: Callable[[], Store], create: bool = False
) -> AsyncIterator[Spot]:
    """The place that ``text`` means, while the block runs.

    Args:
        store: gives the store, where it is needed; nothing is taken out of it during the block.
        create: it is a destination: a layout that does not exist is made, an archive will be.

    Raises:
        BadReference: it is not well written.
        ImageError: an archive cannot be read, or holds several images.
        LayoutInvalid: the directory is no layout.
    """
    scheme, _, rest = text.partition(":")
    if is_archive(text):
        async with open_archive(text, create=create) as spot:
            yield spot
    elif scheme == "store":
        images = store()
        async with images.leased():
            yield _find_place_in_store(images, rest) if create else find_stored(images, rest)
    else:
        yield await find_spot(connections, text, store=store, create=create)


@asynccontextmanager
async def plan_spot(connections: Connections, text: str, *, store: Callable[[], Store]) -> AsyncIterator[Spot]:
    """The destination that ``text`` means, to be looked at only: what is not there yet is empty, and not made.

    Raises:
        BadReference, LayoutInvalid: see ``open_spot``.
    """
    if is_archive(text):
        async with open_archive(text, create=True) as spot:
            yield spot
    elif text.startswith(_PREFIX) and not _exists(path := text.removeprefix(_PREFIX).partition(":")[0]):
        yield Spot(Place(Nothing(path), _THE_REPOSITORY), Tag("planned"), text)
    else:
        async with open_spot(connections, text, store=store) as spot:
            yield spot


def _exists(path: str) -> bool:
    return os.path.exists(path)


def is_local(text: str) -> bool:
    """Whether it says a place on this machine: a layout, an archive, or the store."""
    return text.startswith((_PREFIX, "store:")) or is_archive(text)


def is_archive(text: str) -> bool:
    """Whether it says an archive."""
    return text.partition(":")[0] in _ARCHIVES


@asynccontextmanager
async def open_archive(text: str, *, create: bool = False) -> AsyncIterator[Spot]:
    """The image in an archive, or with ``create`` an archive to be written; see ``open_spot``."""
    from moorage.puller.archives.source import ArchiveSource  # noqa: PLC0415 (few copies need what reads archives)
    from moorage.puller.archives.target import ArchiveKind, ArchiveTarget  # noqa: PLC0415

    scheme, _, rest = text.partition(":")
    path, _, name = rest.partition(":")
    if not path:
        raise BadReference(f"{scheme}: say which file, {scheme}:FILE or {scheme}:FILE:NAME")
    if create:
        target = ArchiveTarget(path, ArchiveKind(scheme), name)
        yield Spot(Place(target, _THE_REPOSITORY), Tag("archive"), text)
        return
    with closing(await in_thread(partial(ArchiveSource.open, path))) as source:
        remark = f"{path} has no manifests, as old docker archives: made one" if source.is_converted else ""
        yield Spot(Place(source, _THE_REPOSITORY), source.choose(name).digest, text, remark=remark)


async def find_spot(connections: Connections, text: str, *, store: Callable[[], Store], create: bool = False) -> Spot:
    """The registry, layout or place in the store that ``text`` means.

    Args:
        store: gives the store, where it is needed; another process may take the image out of it.
        create: a layout that does not exist is made.

    Raises:
        BadReference: it is not well written, or means an archive, which is for copies.
        LayoutInvalid: the directory is no layout.
    """
    scheme, _, rest = text.partition(":")
    if is_archive(text):
        raise BadReference(f"{text}: {scheme}: can be copied and pushed from, and copied to; nothing else")
    if scheme == "store":
        return _find_place_in_store(store(), rest) if create else find_stored(store(), rest)
    if text.startswith(_PREFIX):
        return parse_layout(text.removeprefix(_PREFIX), create=create)
    reference = parse_reference(text)
    place = Place(await connections.remote(reference.registry), reference.repository)
    return Spot(place, reference.target, str(reference), reference.registry)


def find_stored(store: Store, text: str) -> Spot:
    """The image of the store that ``text`` refers to; it stays what it was while a lease is held.

    Raises:
        BadReference: it is not well written.
        ImageError: the store does not have it.
    """
    reference = parse_reference(text)
    layout = store.snapshot(reference.registry)
    try:
        store.mark_used(layout.catalog.resolve(reference.repository, reference.target).digest)
    except ManifestUnknown:
        raise ImageError(f"{reference}: not in the store") from None
    return Spot(Place(layout, reference.repository), reference.target, str(reference))


def _find_place_in_store(store: Store, text: str) -> Spot:
    reference = parse_reference(text)
    return Spot(Place(store.view(reference.registry), reference.repository), reference.target, str(reference))


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
    if not path:
        raise BadReference("oci: say which directory, oci:DIR or oci:DIR:NAME")
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
