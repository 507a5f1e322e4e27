"""The verbs that look after the store: ``images``."""

from __future__ import annotations

from collections.abc import Iterator

from moorage.puller.commands.arguments import facts
from moorage.puller.show.console import to_json
from moorage.puller.show.text import human_size, printable
from moorage.puller.store import Store, default_store

__all__ = ["images"]


def images(store: str | None, as_json: bool) -> Iterator[str]:
    """Lists the images of the store."""
    for image in Store(store or default_store()).images():
        if as_json:
            about = {**facts(image.descriptor), "platforms": image.platforms, "content": image.size}
            yield to_json({"reference": image.name, **about})
        else:
            digest = image.descriptor.digest.hex[:12]
            yield printable(f"{image.name:<60} {digest}  {' '.join(image.platforms):<14} {human_size(image.size):>9}")
