"""Where images are, as people type it: a reference, or ``oci:DIR`` and ``oci:DIR:NAME`` for an OCI image layout."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from moorage.puller.errors import BadReference, ImageError
from moorage.puller.layout import ImageLayout
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.remote import RemoteRegistry
from moorage.puller.transfer import Place
from moorage.registry.oci import (
    DigestInvalid,
    NameInvalid,
    Reference,
    RepositoryName,
    Tag,
    TagInvalid,
    TagOrDigest,
    parse_tag_or_digest,
)

__all__ = ["Connections", "Spot", "is_layout", "parse_layout", "parse_reference"]

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


class Connections:
    """Registries in use, one connection pool each, so that a copy within one registry is seen as such."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._remotes: dict[str, RemoteRegistry] = {}

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, exc, trace)

    async def remote(self, registry: str) -> RemoteRegistry:
        """The registry at ``host`` or ``host:port``."""
        if registry not in self._remotes:
            self._remotes[registry] = await self._stack.enter_async_context(RemoteRegistry.connect(registry))
        return self._remotes[registry]

    async def find(self, text: str, *, create: bool = False) -> Spot:
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
        place = Place(await self.remote(reference.registry), reference.repository)
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
    return Spot(Place(view, _THE_REPOSITORY), _parse_target(name), f"{path}:{name}")


def parse_reference(text: str) -> Reference:
    """The reference that a person typed.

    Raises:
        BadReference: it is not well written; the message says which part.
    """
    try:
        return Reference.parse(text)
    except (NameInvalid, TagInvalid, DigestInvalid) as exc:
        raise BadReference(f"{text}: {exc.message}") from exc


def _parse_target(text: str) -> TagOrDigest:
    try:
        return parse_tag_or_digest(text)
    except (TagInvalid, DigestInvalid) as exc:
        raise BadReference(f"{text}: {exc.message}") from exc
