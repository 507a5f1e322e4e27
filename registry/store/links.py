"""Links: which repository may read which blob.

Law: a repository reads a blob only through a link of its own, never because the bytes happen to be stored (rule T7).
Law of deletes: nobody brings a link back on the strength of one that he saw earlier. What exists is made young again by
compare-and-swap, which fails once it was deleted; what is new is written first, and what allowed it looked for after.
The link of a manifest that is only being put allows nothing: or two of them would vouch for each other.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from moorage.registry.oci import Digest, RepositoryName, Unavailable
from moorage.registry.store import layout
from moorage.registry.store.records import Records
from moorage.storage_backends.base import ObjectInfo, ObjectStore
from moorage.storage_backends.errors import Conflict, KeyNotFound

__all__ = ["GRACE", "REFRESH", "Links"]

GRACE: Final = 24 * 3600.0
"""Seconds for which a blob that a client was told of stays, though nothing references it (promise M6)."""

REFRESH: Final = GRACE / 4
"""Seconds after which a link is made young again by whoever asks; so collection spares links until GRACE + REFRESH."""

_ATTEMPTS: Final = 10
_SEEN: Final = 65536


class Links:
    """The links of all repositories. ``clock``: Unix time in seconds, for nothing but the age of links."""

    def __init__(self, store: ObjectStore, records: Records, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._records = records
        self._clock = clock
        # A hint only: which link was there the last time, so that one look tells (5 us) instead of a listing (18).
        self._seen: OrderedDict[tuple[RepositoryName, Digest], str] = OrderedDict()

    async def exist(self, repository: RepositoryName, digest: Digest) -> bool:
        """Whether the repository may read the blob, if it is stored."""
        if await self._still_there(repository, digest) is not None:
            return True
        async for link in self._store.list(layout.links(repository, digest)):
            if isinstance(link, ObjectInfo):
                self._remember(repository, digest, link.key)
            return True
        return False

    async def all(self, repository: RepositoryName, digest: Digest) -> list[ObjectInfo]:
        """Every link that the repository has on the blob."""
        return [e async for e in self._store.list(layout.links(repository, digest)) if isinstance(e, ObjectInfo)]

    async def allow(self, repository: RepositoryName, digest: Digest) -> bool:
        """Whether something else than puts under way lets the repository have the blob now."""
        seen = await self._still_there(repository, digest)  # first, for a base layer has thousands
        if seen is not None and await self._allows(repository, seen.key):
            return True
        async for link in self._store.list(layout.links(repository, digest)):
            if isinstance(link, ObjectInfo) and await self._allows(repository, link.key):
                return True
        return False

    async def add(self, repository: RepositoryName, digest: Digest) -> None:
        """Lets the repository read the blob, which is kept for ``GRACE`` seconds."""
        await self._store.put(layout.upload_link(repository, digest), b"")

    async def renew(self, repository: RepositoryName, digest: Digest) -> bool:
        """Keeps a blob that the repository may read for ``GRACE`` seconds more; False if it may not read it."""
        seen = await self._still_there(repository, digest)
        if seen is not None and layout.is_upload_link(seen.key) and seen.modified >= self._clock() - REFRESH:
            return True
        for _ in range(_ATTEMPTS):
            links = await self.all(repository, digest)
            uploads = [link for link in links if layout.is_upload_link(link.key)]
            if uploads:
                is_kept = await self._is_young(repository, digest, max(uploads, key=lambda link: link.modified))
            elif (holder := await self._holder(repository, links)) is not None:
                is_kept = await self._add_beside(repository, digest, holder)
            else:
                return False
            if is_kept:
                return True
        raise Unavailable("the links of this blob change too fast")

    async def _is_young(self, repository: RepositoryName, digest: Digest, newest: ObjectInfo) -> bool:
        """Whether the newest link is young now; False if somebody came between."""
        self._remember(repository, digest, newest.key)
        if newest.modified < self._clock() - REFRESH:
            try:
                # Not empty again: where versions are hashes, a collector that saw the old one must not hit this one.
                await self._store.put(newest.key, secrets.token_bytes(8), expect=newest.version)
            except Conflict:
                return False
        return True

    async def _add_beside(self, repository: RepositoryName, digest: Digest, holder: str) -> bool:
        """Adds a link beside that of a manifest; False, and nothing added, if that is gone meanwhile."""
        link = layout.upload_link(repository, digest)
        await self._store.put(link, b"")
        try:
            await self._store.stat(holder)
            if await self._allows(repository, holder):
                return True
        except KeyNotFound:
            pass
        await self._store.delete(link)
        return False

    async def _holder(self, repository: RepositoryName, links: list[ObjectInfo]) -> str | None:
        """The first link of a manifest that is published."""
        for link in links:
            if await self._allows(repository, link.key):
                return link.key
        return None

    async def _allows(self, repository: RepositoryName, link: str) -> bool:
        manifest = layout.parse_manifest_link(link)
        return manifest is None or await self._records.find(repository, *manifest) is not None

    async def _still_there(self, repository: RepositoryName, digest: Digest) -> ObjectInfo | None:
        """The link that was seen last, as it is now; None where it has gone."""
        key = self._seen.get((repository, digest))
        if key is None:
            return None
        try:
            return await self._store.stat(key)
        except KeyNotFound:
            self._seen.pop((repository, digest), None)
            return None

    def _remember(self, repository: RepositoryName, digest: Digest, key: str) -> None:
        self._seen[repository, digest] = key
        if len(self._seen) > _SEEN:
            self._seen.popitem(last=False)
