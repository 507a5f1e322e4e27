"""The client's verbs, as functions of the values that the command line gives.

Law: each yields what to print on stdout; progress and remarks go to stderr. Failures that the world can cause become
one line and exit status 1 in ``run``; anything else is a defect and keeps its traceback.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click
from moorage.puller.console import Display, display, human_size, printable, say, to_json
from moorage.puller.errors import BadReference, ImageError
from moorage.puller.events import LayerUnpacked
from moorage.puller.image import read_layers
from moorage.puller.inspection import Inspection, inspect_image
from moorage.puller.layout import ImageLayout
from moorage.puller.layout_catalog import load_manifest
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.pack import pack_directory, source_date_epoch
from moorage.puller.places import Connections, Spot, is_layout, parse_layout, parse_reference
from moorage.puller.platforms import host_platform, parse_platform
from moorage.puller.store import Store, default_store
from moorage.puller.transfer import Place, copy_image, find_image
from moorage.puller.unpack.apply import Layer, Unpacked, unpack_layers
from moorage.registry.oci import Descriptor, ImageManifest, Manifest, OciError, Platform, Reference, RepositoryName
from moorage.registry.oci.media_types import OCI_CONFIG

__all__ = ["run"]

_CONTAINER_CONFIGS = frozenset({OCI_CONFIG, "application/vnd.docker.container.image.v1+json"})
_SHOWN_REMARKS = 10
_SHOWN_DETAIL = 500


def run(verb: str, options: Mapping[str, Any]) -> None:
    """Runs a verb with the options of its command; ends the process with status 1 where it fails.

    Raises:
        click.UsageError: an argument is not well written.
    """
    try:
        for line in _VERBS[verb](**options):
            print(line)
    except BadReference as exc:
        raise click.UsageError(printable(str(exc))) from exc
    except OciError as exc:
        detail = f" {json.dumps(exc.detail)[:_SHOWN_DETAIL]}" if exc.detail else ""
        say(f"moorage: {exc.message}{detail}")
        sys.exit(1)
    except (ImageError, OSError) as exc:
        say(f"moorage: {exc}")
        sys.exit(1)


def _pull(
    reference: str, target: str | None, no_unpack: bool, store: str | None, platform: str | None, as_json: bool
) -> Iterator[str]:
    wanted, place = parse_reference(reference), Store(store or default_store())
    chosen = _platform(platform) or host_platform()
    with display(as_json=as_json) as show:
        pulled = asyncio.run(_fetch(wanted, place, chosen, show))
        paths = [] if no_unpack else _unpack(place, load_manifest(place.files, pulled), target, show)
    name = f"{wanted.registry}/{wanted.repository}@{pulled.digest}"
    if as_json:
        yield to_json({"event": "Pulled", "reference": name, **_facts(pulled), "store": place.root, "paths": paths})
    else:
        yield printable(name)


async def _fetch(wanted: Reference, store: Store, platform: Platform, show: Display) -> Descriptor:
    async with Connections() as connections:
        source = Place(await connections.remote(wanted.registry), wanted.repository)
        destination = Place(store.view(wanted.registry), wanted.repository)
        tags = [wanted.tag] if wanted.tag else []
        return await copy_image(source, wanted.target, destination, tags=tags, platform=platform, on_event=show)


def _unpack(store: Store, manifest: Manifest, target: str | None, show: Display) -> list[str]:
    """Where the image's files are now: one merged tree at ``target``, or one tree per layer in the store."""
    if target is None and not _is_container(manifest):
        say("not a container image: kept as it is")
        return []
    layers = read_layers(store.files, manifest)

    def on_layer(layer: Layer, done: Unpacked) -> None:
        show(LayerUnpacked(layer.descriptor, done.entries, done.size))

    if target is None:
        return store.unpack(layers, on_layer)
    _remark(unpack_layers(layers, target, on_layer=on_layer).skipped)
    return [os.path.abspath(target)]


def _is_container(manifest: Manifest) -> bool:
    document = manifest.document
    return isinstance(document, ImageManifest) and document.config.media_type in _CONTAINER_CONFIGS


def _remark(skipped: Sequence[str]) -> None:
    for line in skipped[:_SHOWN_REMARKS]:
        say(f"left out: {line}")
    if len(skipped) > _SHOWN_REMARKS:
        say(f"left out: {len(skipped) - _SHOWN_REMARKS} more")


def _push(source: str, reference: str, store: str | None, platform: str | None, as_json: bool) -> Iterator[str]:
    chosen = _platform(platform)
    with tempfile.TemporaryDirectory(prefix="moorage-") as scratch, display(as_json=as_json) as show:
        if os.path.isdir(source) and not is_layout(source):
            spot = _pack(source, os.path.join(scratch, "layout"), chosen or host_platform())
            chosen = None
        else:
            spot = _find_local(source, store)
        pushed, name = asyncio.run(_send(spot, reference, chosen, show))
    if as_json:
        yield to_json({"event": "Pushed", "reference": name, **_facts(pushed)})
    else:
        yield printable(f"{name}@{pushed.digest}")


def _pack(source: str, scratch: str, platform: Platform) -> Spot:
    files = LayoutFiles(scratch, create=True)
    packed = pack_directory(source, files, platform=platform, epoch=source_date_epoch())
    say(f"packed {packed.entries} entries, {human_size(packed.size)}, into {human_size(packed.layer.size)}")
    _remark([f"{name}: is a socket" for name in packed.skipped])
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
        _check_has_tag(there)
        pushed = await copy_image(
            source.place, source.target, there.place, tags=there.tags, platform=platform, on_event=show
        )
        return pushed, there.name


def _copy(source: str, destination: str, all_platforms: bool, platform: str | None, as_json: bool) -> Iterator[str]:
    chosen = None if all_platforms else _platform(platform) or host_platform()
    with display(as_json=as_json) as show:
        copied, name = asyncio.run(_copy_between(source, destination, chosen, show))
    if as_json:
        yield to_json({"event": "Copied", "reference": name, **_facts(copied)})
    else:
        yield printable(f"{name}@{copied.digest}")


async def _copy_between(
    source: str, destination: str, platform: Platform | None, show: Display
) -> tuple[Descriptor, str]:
    async with Connections() as connections:
        here, there = await connections.find(source), await connections.find(destination, create=True)
        _check_has_tag(there)
        copied = await copy_image(
            here.place, here.target, there.place, tags=there.tags, platform=platform, on_event=show
        )
        return copied, there.name


def _tags(repository: str, as_json: bool) -> Iterator[str]:
    wanted = parse_reference(repository)
    names = asyncio.run(_list_tags(wanted))
    if as_json:
        yield to_json({"name": f"{wanted.registry}/{wanted.repository}", "tags": names})
    else:
        yield from names


async def _list_tags(wanted: Reference) -> list[str]:
    async with Connections() as connections:
        registry = await connections.remote(wanted.registry)
        return [str(tag) async for tag in registry.list_tags(wanted.repository)]


def _inspect(reference: str, platform: str | None, as_json: bool) -> Iterator[str]:
    found = asyncio.run(_inspect_at(reference, _platform(platform)))
    yield to_json(found.to_json()) if as_json else printable_lines(found.to_lines())


async def _inspect_at(reference: str, platform: Platform | None) -> Inspection:
    async with Connections() as connections:
        spot = await connections.find(reference)
        return await inspect_image(spot.name, spot.place, spot.target, platform)


def printable_lines(lines: Sequence[str]) -> str:
    """The lines, each made harmless."""
    return "\n".join(map(printable, lines))


def _images(store: str | None, as_json: bool) -> Iterator[str]:
    for image in Store(store or default_store()).images():
        if as_json:
            facts = {**_facts(image.descriptor), "platform": image.platform, "content": image.size}
            yield to_json({"reference": image.name, **facts})
        else:
            digest = image.descriptor.digest.hex[:12]
            yield printable(f"{image.name:<60} {digest}  {image.platform:<14} {human_size(image.size):>9}")


def _unpack_stored(
    reference: str, target: str, store: str | None, platform: str | None, as_json: bool
) -> Iterator[str]:
    place, wanted = Store(store or default_store()), parse_reference(reference)
    source = Place(place.view(wanted.registry), wanted.repository)
    manifest = asyncio.run(find_image(source, wanted.target, _platform(platform) or host_platform()))
    with display(as_json=as_json) as show:
        paths = _unpack(place, manifest, target, show)
    yield to_json({"event": "Unpacked", **_facts(manifest.descriptor), "paths": paths}) if as_json else paths[0]


def _delete(reference: str) -> Iterator[str]:
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


def _check_has_tag(there: Spot) -> None:
    if not there.tags:
        raise BadReference(f"{there.name}: a destination is named by a tag, its digest follows from the content")


def _platform(text: str | None) -> Platform | None:
    try:
        return parse_platform(text) if text else None
    except ValueError as exc:
        raise BadReference(str(exc)) from exc


def _facts(descriptor: Descriptor) -> dict[str, Any]:
    return {"digest": str(descriptor.digest), "size": descriptor.size, "mediaType": descriptor.media_type}


_VERBS: Mapping[str, Callable[..., Iterator[str]]] = {
    "pull": _pull,
    "push": _push,
    "copy": _copy,
    "tags": _tags,
    "inspect": _inspect,
    "images": _images,
    "unpack": _unpack_stored,
    "delete": _delete,
}
