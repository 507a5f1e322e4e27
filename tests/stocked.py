"""Stores with images in them, whose layers are named by words, so that two images share those of the same name."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moorage.puller.store import Store
from moorage.registry.oci import Descriptor, Digest, Reference, RepositoryName
from moorage.registry.oci.media_types import OCI_LAYER

from tests.content import Blob, Content, assembled, push
from tests.layers import archive, directory

__all__ = ["CREATED", "HOST", "diff_id", "image_of_words", "names_in", "reference_to", "stock"]

HOST = "localhost:5000"
CREATED = "2024-05-06T07:08:09Z"


def reference_to(text: str) -> Reference:
    """``text`` at the registry that everything in the store is from."""
    return Reference.parse(f"{HOST}/{text}")


def image_of_words(seed: str, layers: Sequence[str] = ("base",), **config: Any) -> Content:
    """An image with a layer of each name, and ``config`` in its config."""
    parts = [_layer(name) for name in layers]
    names = [str(diff_id(name)) for name in layers]
    about = {"created": CREATED, "author": seed, "rootfs": {"type": "layers", "diff_ids": names}, **config}
    return assembled(about, parts)


def _layer(name: str) -> Blob:
    """An archive of a few directories, and bytes after its end that make it 10,000 and its own."""
    raw = archive(directory("usr"), directory("usr/bin"))
    raw += random.Random(name).randbytes(10_000 - len(raw))
    return Blob(Descriptor(OCI_LAYER, Digest.of(raw), len(raw)), raw)


def diff_id(name: str) -> Digest:
    """Of the layer of that name."""
    return _layer(name).digest


def _make_tree(store: Store, name: str) -> None:
    """What the layer unpacks to."""
    for path in ("usr", "usr/bin"):
        folder = Path(store.tree_path(diff_id(name)), path)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)


def stock(store: Store, content: Content, name: str, *, age: float = 0) -> Content:
    """Puts an image into the store as if it had been pulled ``age`` seconds ago, with its trees."""
    repository, _, tag = name.partition(":")
    asyncio.run(push(store.view(HOST), RepositoryName.parse(repository), content, *([tag] if tag else [])))
    store.mark_used(content.digest)
    os.utime(store.files.blob_path(content.digest), (time.time() - age,) * 2)
    for part in content.walk():
        for layer in part.blobs[1:]:
            name = next((n for n in ("base", "top", "other") if diff_id(n) == layer.digest), "")
            _make_tree(store, name)
    return content


def names_in(store: Store) -> list[str]:
    """What the store's images are called, without the registry."""
    return [image.name.removeprefix(f"{HOST}/") for image in store.images()]
