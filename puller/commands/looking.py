"""The verbs that read a registry: ``tags``, ``inspect``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from moorage.puller.commands.arguments import platform_of
from moorage.puller.inspection import Inspection, inspect_image
from moorage.puller.places import Connections, parse_reference
from moorage.puller.show.console import to_json
from moorage.puller.show.text import printable_lines
from moorage.registry.oci import Platform, Reference

__all__ = ["inspect", "tags"]


def tags(repository: str, as_json: bool) -> Iterator[str]:
    """Lists the tags of a repository."""
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


def inspect(reference: str, platform: str | None, as_json: bool) -> Iterator[str]:
    """Shows what a reference names."""
    found = asyncio.run(_inspect_at(reference, platform_of(platform)))
    yield to_json(found.to_json()) if as_json else printable_lines(found.to_lines())


async def _inspect_at(reference: str, platform: Platform | None) -> Inspection:
    async with Connections() as connections:
        spot = await connections.find(reference)
        return await inspect_image(spot.name, spot.place, spot.target, platform)
