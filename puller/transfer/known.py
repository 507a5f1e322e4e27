"""Where a registry may have a blob already: in which of its repositories, as far as this machine can tell.

Rule: knowledge is a hint. Whoever uses it asks the registry, and goes on without where the registry says no.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from moorage.puller.errors import ImageError
from moorage.puller.layout_catalog import load_manifest
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.layout_names import FullReferences
from moorage.puller.transfer.graph import Place
from moorage.registry.oci import Descriptor, Digest, OciError, RepositoryName
from moorage.registry.oci.values import dataclass, field

__all__ = ["Known", "StoredNames"]

_MAX_MANIFESTS = 10_000


@dataclass(frozen=True, slots=True)
class StoredNames:
    """The images of a store whose names begin with ``registry``: they were pulled from there."""

    files: LayoutFiles
    registry: str

    def homes(self) -> dict[Digest, list[RepositoryName]]:
        """The repositories of the registry that had each blob. Blocks."""
        homes: dict[Digest, list[RepositoryName]] = {}
        names = FullReferences(self.registry)
        for entry in self.files.read_index():
            if (place := names.read(entry.ref_name)) is not None:
                for digest in self._blobs_of(entry.descriptor):
                    homes.setdefault(digest, []).append(place[0])
        return homes

    def _blobs_of(self, root: Descriptor) -> Iterator[Digest]:
        waiting, seen = [root], set[Digest]()
        while waiting and len(seen) < _MAX_MANIFESTS:
            descriptor = waiting.pop()
            if descriptor.digest in seen:
                continue
            seen.add(descriptor.digest)
            try:
                document = load_manifest(self.files, descriptor).document
            except (OciError, ImageError):
                continue  # what the store lacks is no hint
            yield from (blob.digest for blob in document.blobs)
            waiting.extend(document.manifests)


@dataclass(slots=True)
class Known:
    """Repositories of the destination's registry that may have a blob.

    Args:
        source: where a copy comes from, if that is the same registry.
        names: what the store knows of the registry; read when it is first needed.
    """

    destination: Place
    source: RepositoryName | None = None
    names: StoredNames | None = None
    _homes: dict[Digest, list[RepositoryName]] | None = None
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def homes(self, digest: Digest) -> Sequence[RepositoryName]:
        """The repositories that may have the blob, the likeliest first; never the destination itself."""
        async with self._reading:
            if self._homes is None:
                self._homes = await asyncio.to_thread(self.names.homes) if self.names else {}
        found = [*([] if self.source is None else [self.source]), *self._homes.get(digest, ())]
        return [name for name in dict.fromkeys(found) if name != self.destination.repository]
