"""What can be pushed, as people name it: a directory, an OCI layout, an archive, or an image of the store.

Law: a directory is packed into a layout in the store's staging, which lives as long as the block or its process; what
the store holds stays there while the block runs. Nothing is written beside the source.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from moorage.puller.errors import ImageError
from moorage.puller.events import OnEvent, Packed
from moorage.puller.layout import ImageLayout
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.places import Spot, find_stored, is_archive, is_layout, open_archive, parse_layout
from moorage.puller.platforms import host_platform
from moorage.puller.staging import staging_directory
from moorage.puller.store import Store
from moorage.puller.threads import in_thread
from moorage.puller.transfer import Place
from moorage.registry.oci import Platform, RepositoryName

if TYPE_CHECKING:
    from moorage.puller.pack import PackOptions

__all__ = ["is_directory_to_pack", "open_source"]

_PACKED = RepositoryName("packed")


def is_directory_to_pack(source: str) -> bool:
    """Whether pushing ``source`` packs it first."""
    return os.path.isdir(source) and not is_layout(source)


@asynccontextmanager
async def open_source(
    source: str,
    *,
    store: Callable[[], Store],
    platform: Platform | None,
    pack: PackOptions | None = None,
    on_event: OnEvent,
) -> AsyncIterator[Spot]:
    """Where the image is, while the block runs.

    Args:
        store: gives the store, where it is needed.
        platform: of an image that is packed; None: this machine's.
        pack: how a directory is packed.

    Raises:
        BadReference, ImageError: it names nothing that can be pushed.
        LayoutInvalid: the directory is a damaged layout.
        PackError: the directory cannot be represented as a layer.
    """
    if is_directory_to_pack(source):
        with staging_directory(store().root) as scratch:
            yield await _pack(source, os.path.join(scratch, "layout"), platform or host_platform(), pack, on_event)
    elif is_archive(source):
        async with open_archive(source) as archived:
            yield archived
    elif (layout := _find_layout(source)) is not None:
        yield layout
    else:
        place = store()
        async with place.leased():
            yield _find_stored(place, source)


async def _pack(source: str, scratch: str, platform: Platform, pack: PackOptions | None, on_event: OnEvent) -> Spot:
    from moorage.puller.pack import PackOptions, pack_directory, source_date_epoch  # noqa: PLC0415 (only to pack)

    files, options = LayoutFiles(scratch, create=True), pack or PackOptions()
    work = partial(pack_directory, source, files, platform=platform, epoch=source_date_epoch(), options=options)
    packed = await in_thread(work)
    on_event(Packed(packed.layer, packed.entries, packed.size, packed.skipped))
    layout = ImageLayout.of_tags(files, _PACKED)
    await layout.push_manifest(_PACKED, packed.manifest)
    return Spot(Place(layout, _PACKED), packed.manifest.digest, source)


def _find_layout(source: str) -> Spot | None:
    """The image in a layout; None if the source names none."""
    path = source.removeprefix("oci:")
    if path != source or is_layout(path.partition(":")[0]):
        return parse_layout(path)
    if os.path.isfile(source):
        raise ImageError(f"{source}: is a file; an archive is written docker-archive:{source} or oci-archive:{source}")
    if source.startswith((".", "/")):
        raise ImageError(f"{source}: neither a directory nor an OCI layout")
    return None


def _find_stored(store: Store, source: str) -> Spot:
    """The image of the store; where there is none, perhaps a directory was meant."""
    try:
        return find_stored(store, source)
    except ImageError as exc:
        if ":" in source:
            raise
        raise type(exc)(f"{exc}, and there is no directory {source}") from None
