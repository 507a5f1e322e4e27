"""Where a registry may have a blob already: in which of its repositories, as far as this machine can tell.

Rule: knowledge is a hint. Whoever uses it asks the registry, and goes on without where the registry says no.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from moorage.puller.errors import ImageError
from moorage.puller.layout import ImageLayout
from moorage.puller.transfer.graph import Place, read_graph
from moorage.registry.oci import Digest, OciError, RepositoryName

__all__ = ["Known"]


@dataclass(slots=True)
class Known:
    """Repositories of the destination's registry that may have a blob.

    Args:
        source: where a copy comes from, if that is the same registry.
        names: the store's images that carry the name of the registry; read when they are first needed.
    """

    destination: Place
    source: RepositoryName | None = None
    names: ImageLayout | None = None
    _homes: dict[Digest, list[RepositoryName]] | None = None
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def homes(self, digest: Digest) -> Sequence[RepositoryName]:
        """The repositories that may have the blob, the likeliest first; never the destination itself."""
        found = [] if self.source is None else [self.source]
        found.extend((await self._read_names()).get(digest, ()))
        return [name for name in dict.fromkeys(found) if name != self.destination.repository]

    async def _read_names(self) -> dict[Digest, list[RepositoryName]]:
        async with self._reading:
            if self._homes is None:
                self._homes = {}
                if self.names is not None:
                    await self._read(self.names, self._homes)
            return self._homes

    async def _read(self, names: ImageLayout, homes: dict[Digest, list[RepositoryName]]) -> None:
        async for repository in names.list_repositories():
            place = Place(names, repository)
            async for tag in names.list_tags(repository):
                try:
                    graph = await read_graph(place, await names.read_manifest(repository, tag))
                except (OciError, ImageError):
                    continue  # what the store lacks is no hint
                for digest in graph.blobs:
                    homes.setdefault(digest, []).append(repository)
