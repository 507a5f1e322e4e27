"""The verbs that change a registry: ``push``, ``copy``, ``delete``."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator

from moorage.puller.commands.arguments import check_has_tag, facts, platform_of, remark
from moorage.puller.errors import BadReference, ImageError
from moorage.puller.layout import ImageLayout
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.pack import pack_directory, source_date_epoch
from moorage.puller.places import Connections, Spot, is_layout, parse_layout, parse_reference
from moorage.puller.platforms import host_platform
from moorage.puller.show.console import Display, display, say, to_json
from moorage.puller.show.text import human_size, printable
from moorage.puller.store import Store, default_store
from moorage.puller.transfer import Place, Wish, copy_image
from moorage.registry.oci import Descriptor, Platform, Reference, RepositoryName

__all__ = ["copy", "delete", "push"]


def push(source: str, reference: str, store: str | None, platform: str | None, as_json: bool) -> Iterator[str]:
    """Sends a directory, a layout or an image of the store."""
    chosen = platform_of(platform)
    with tempfile.TemporaryDirectory(prefix="moorage-") as scratch, display(as_json=as_json) as show:
        if os.path.isdir(source) and not is_layout(source):
            spot = _pack(source, os.path.join(scratch, "layout"), chosen or host_platform())
            chosen = None
        else:
            spot = _find_local(source, store)
        pushed, name = asyncio.run(_send(spot, reference, chosen, show))
    if as_json:
        yield to_json({"event": "Pushed", "reference": name, **facts(pushed)})
    else:
        yield printable(f"{name}@{pushed.digest}")


def _pack(source: str, scratch: str, platform: Platform) -> Spot:
    files = LayoutFiles(scratch, create=True)
    packed = pack_directory(source, files, platform=platform, epoch=source_date_epoch())
    say(f"packed {packed.entries} entries, {human_size(packed.size)}, into {human_size(packed.layer.size)}")
    remark([f"{name}: is a socket" for name in packed.skipped])
    repository = RepositoryName("packed")
    layout = ImageLayout.of_tags(files, repository)
    asyncio.run(layout.push_manifest(repository, packed.manifest))
    return Spot(Place(layout, repository), packed.manifest.digest, source)


def _find_local(source: str, store: str | None) -> Spot:
    """A layout, or an image of the store."""
    path = source.removeprefix("oci:")
    if path != source or is_layout(path.partition(":")[0]):
        return parse_layout(path)
    if source.startswith((".", "/")):
        raise ImageError(f"{source}: neither a directory nor an OCI layout")
    wanted = parse_reference(source)
    view = Store(store or default_store()).view(wanted.registry)
    return Spot(Place(view, wanted.repository), wanted.target, str(wanted))


async def _send(source: Spot, reference: str, platform: Platform | None, show: Display) -> tuple[Descriptor, str]:
    async with Connections() as connections:
        there = await connections.find(reference, create=True)
        check_has_tag(there)
        wish = Wish(source.target, tags=there.tags, platform=platform)
        return (await copy_image(source.place, wish, there.place, on_event=show)).descriptor, there.name


def copy(source: str, destination: str, all_platforms: bool, platform: str | None, as_json: bool) -> Iterator[str]:
    """Copies between registries and layouts."""
    chosen = None if all_platforms else platform_of(platform) or host_platform()
    with display(as_json=as_json) as show:
        copied, name = asyncio.run(_copy_between(source, destination, chosen, show))
    if as_json:
        yield to_json({"event": "Copied", "reference": name, **facts(copied)})
    else:
        yield printable(f"{name}@{copied.digest}")


async def _copy_between(
    source: str, destination: str, platform: Platform | None, show: Display
) -> tuple[Descriptor, str]:
    async with Connections() as connections:
        here, there = await connections.find(source), await connections.find(destination, create=True)
        check_has_tag(there)
        wish = Wish(here.target, tags=there.tags, platform=platform)
        return (await copy_image(here.place, wish, there.place, on_event=show)).descriptor, there.name


def delete(reference: str) -> Iterator[str]:
    """Deletes a tag or a manifest."""
    wanted = parse_reference(reference)
    if wanted.digest is None and not reference.endswith(f":{wanted.tag}"):
        raise BadReference(f"{reference}: say which tag or digest to delete")
    asyncio.run(_delete_at(wanted))
    yield printable(f"deleted {wanted}")


async def _delete_at(wanted: Reference) -> None:
    async with Connections() as connections:
        registry = await connections.remote(wanted.registry)
        if wanted.digest is not None:
            await registry.delete_manifest(wanted.repository, wanted.digest)
        elif wanted.tag is not None:
            await registry.delete_tag(wanted.repository, wanted.tag)
