"""The verbs that read a registry: ``tags``, ``inspect``."""

from __future__ import annotations

from collections.abc import Iterator

from moorage.puller.client import AsyncClient, to_platform, to_reference
from moorage.puller.commands.running import run_async
from moorage.puller.images import Image
from moorage.puller.inspection import Inspection
from moorage.puller.show.console import to_json
from moorage.puller.show.text import printable_lines

__all__ = ["inspect", "tags"]


def tags(repository: str, as_json: bool) -> Iterator[str]:
    """Lists the tags of a repository."""
    wanted = to_reference(repository)

    async def work() -> list[str]:
        async with AsyncClient() as client:
            return await client.tags(wanted)

    names = run_async(work())
    if as_json:
        yield to_json({"name": f"{wanted.registry}/{wanted.repository}", "tags": names})
    else:
        yield from names


def inspect(reference: str, store: str | None, platform: str | None, as_json: bool) -> Iterator[str]:
    """Shows what a reference names."""
    chosen = to_platform(platform)

    async def work() -> Image:
        async with AsyncClient(store) as client:
            return await client.image(reference, platform=chosen, index=chosen is None)

    image = run_async(work())
    found = Inspection(image.reference, image.descriptor, image.document, image.config)
    yield to_json(found.to_json()) if as_json else printable_lines(found.to_lines())
