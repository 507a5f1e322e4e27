"""The verbs that bring images here: ``pull``, ``unpack``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

from moorage.puller.commands.arguments import facts, platform_of, remark
from moorage.puller.events import LayerUnpacked
from moorage.puller.image import read_layers
from moorage.puller.layout_catalog import load_manifest
from moorage.puller.places import Connections, parse_reference
from moorage.puller.platforms import host_platform
from moorage.puller.show.console import Display, display, say, to_json
from moorage.puller.show.text import printable
from moorage.puller.store import Store, default_store
from moorage.puller.transfer import Place, Wish, copy_image, find_image
from moorage.puller.unpack.apply import Layer, Unpacked, unpack_layers
from moorage.registry.oci import Descriptor, ImageManifest, Manifest, Platform, Reference
from moorage.registry.oci.media_types import OCI_CONFIG

__all__ = ["pull", "unpack"]

_CONTAINER_CONFIGS = frozenset({OCI_CONFIG, "application/vnd.docker.container.image.v1+json"})


def pull(
    reference: str, target: str | None, no_unpack: bool, store: str | None, platform: str | None, as_json: bool
) -> Iterator[str]:
    """Fetches into the store, and unpacks there or to ``target``."""
    wanted, place = parse_reference(reference), Store(store or default_store())
    chosen = platform_of(platform) or host_platform()
    with display(as_json=as_json) as show:
        pulled = asyncio.run(_fetch(wanted, place, chosen, show))
        paths = [] if no_unpack else _unpack(place, load_manifest(place.files, pulled), target, show)
    name = f"{wanted.registry}/{wanted.repository}@{pulled.digest}"
    if as_json:
        yield to_json({"event": "Pulled", "reference": name, **facts(pulled), "store": place.root, "paths": paths})
    else:
        yield printable(name)


async def _fetch(wanted: Reference, store: Store, platform: Platform, show: Display) -> Descriptor:
    async with Connections() as connections:
        source = Place(await connections.remote(wanted.registry), wanted.repository)
        destination = Place(store.view(wanted.registry), wanted.repository)
        tags = [wanted.tag] if wanted.tag else []
        wish = Wish(wanted.target, tags=tags, platform=platform)
        return (await copy_image(source, wish, destination, on_event=show)).descriptor


def unpack(reference: str, target: str, store: str | None, platform: str | None, as_json: bool) -> Iterator[str]:
    """Unpacks an image of the store to ``target``."""
    place, wanted = Store(store or default_store()), parse_reference(reference)
    source = Place(place.view(wanted.registry), wanted.repository)
    manifest = asyncio.run(find_image(source, wanted.target, platform_of(platform) or host_platform()))
    with display(as_json=as_json) as show:
        paths = _unpack(place, manifest, target, show)
    yield to_json({"event": "Unpacked", **facts(manifest.descriptor), "paths": paths}) if as_json else paths[0]


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
    remark(unpack_layers(layers, target, on_layer=on_layer).skipped)
    return [os.path.abspath(target)]


def _is_container(manifest: Manifest) -> bool:
    document = manifest.document
    return isinstance(document, ImageManifest) and document.config.media_type in _CONTAINER_CONFIGS
