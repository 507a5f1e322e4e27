"""The two ends of a push or a copy: opened, checked, and ready to be copied between or planned for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from moorage.puller.connections import Connections
from moorage.puller.errors import BadReference
from moorage.puller.events import OnEvent, Warned
from moorage.puller.places import Spot, is_local, open_spot, plan_spot
from moorage.puller.references import parse_reference
from moorage.puller.sources import is_directory_to_pack, open_source
from moorage.puller.store import Store
from moorage.puller.transfer import CopyResult, Plan, StoredNames, Wish, copy_image, plan_copy
from moorage.registry.oci import Digest, Platform, TagOrDigest
from moorage.registry.oci.values import dataclass

if TYPE_CHECKING:
    from moorage.puller.pack import PackOptions  # loaded only to pack

__all__ = ["Ends", "Extent", "Opener"]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of an image is copied; see ``Wish``."""

    platform: Platform | None
    referrers: bool = False
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Ends:
    """From where, what, and to where."""

    here: Spot
    there: Spot
    wish: Wish

    async def copy(self, on_event: OnEvent) -> CopyResult:
        """See ``copy_image``."""
        if self.here.remark:
            on_event(Warned(self.here.remark))
        return await copy_image(self.here.place, self.wish, self.there.place, on_event=on_event)

    async def plan(self) -> Plan:
        """See ``plan_copy``."""
        return await plan_copy(self.here.place, self.wish, self.there.place)


class Opener:
    """Opens ends. ``store``: where the store is, or would be; it is made when it is needed."""

    def __init__(self, connections: Connections, store: Store | str) -> None:
        self._connections = connections
        self._store = store

    @asynccontextmanager
    async def pushing(
        self, source: str, reference: str, extent: Extent, *, pack: PackOptions | None, on_event: OnEvent, plan: bool
    ) -> AsyncIterator[Ends]:
        """The ends of a push; ``plan``: nothing is made at the destination.

        Raises:
            BadReference, ImageError: see ``open_source`` and ``open_spot``; or the destination has no tag.
        """
        if not is_local(reference):  # said before anything is packed for it
            _check_destination(reference, parse_reference(reference).target)
        # The platform of a directory is what it is packed for; it is then the only one.
        sent = replace(extent, platform=None) if is_directory_to_pack(source) else extent
        opening = open_source(source, store=self._open_store, platform=extent.platform, pack=pack, on_event=on_event)
        async with opening as here, self._destination(reference, plan=plan) as there:
            yield self._ends(here, there, sent)

    @asynccontextmanager
    async def copying(self, source: str, destination: str, extent: Extent, *, plan: bool) -> AsyncIterator[Ends]:
        """The ends of a copy; ``plan``: nothing is made at the destination.

        Raises:
            BadReference, ImageError: see ``open_spot``; or the destination has no tag.
        """
        opening = open_spot(self._connections, source, store=self._open_store)
        async with opening as here, self._destination(destination, plan=plan) as there:
            yield self._ends(here, there, extent)

    @asynccontextmanager
    async def _destination(self, text: str, *, plan: bool) -> AsyncIterator[Spot]:
        opening = plan_spot if plan else partial(open_spot, create=True)
        async with opening(self._connections, text, store=self._open_store) as there:
            _check_destination(there.name, there.target)
            yield there

    def _ends(self, here: Spot, there: Spot, extent: Extent) -> Ends:
        names = None
        if there.host and self._has_store():  # looking for hints makes no store
            names = StoredNames(self._open_store().files, there.host)
        wish = Wish(
            here.target,
            tags=there.tags,
            platform=extent.platform,
            referrers=extent.referrers,
            foreign=extent.foreign,
            name=here.name,
            names=names,
        )
        return Ends(here, there, wish)

    def _has_store(self) -> bool:
        return isinstance(self._store, Store) or os.path.isdir(self._store)

    def _open_store(self) -> Store:
        if isinstance(self._store, str):
            self._store = Store(self._store)
        return self._store


def _check_destination(name: str, target: TagOrDigest) -> None:
    if isinstance(target, Digest):
        raise BadReference(f"{name}: a destination is named by a tag, its digest follows from the content")
