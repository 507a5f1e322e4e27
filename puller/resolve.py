"""Which manifest a pull is about, and whether the registry must be asked.

Law: what a digest names never changes, so what the store holds of it is not asked for. A tag is asked for with a HEAD
where the store knows what it named last; only a change brings a body. The entry of a tag remembers the digest that the
registry gave for it, which is an index's where the image was chosen from one (``RESOLVED``, for ``PLATFORM``).
"""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

from moorage.puller.errors import ImageError, LayoutInvalid
from moorage.puller.layout_catalog import Catalog, load_manifest
from moorage.puller.platforms import choose
from moorage.puller.store import Store
from moorage.puller.threads import in_thread
from moorage.registry.oci import (
    BlobUnknown,
    Descriptor,
    Digest,
    Manifest,
    ManifestUnknown,
    Platform,
    Reader,
    Reference,
)
from moorage.registry.oci.media_types import INDEX_TYPES
from moorage.registry.oci.values import dataclass

__all__ = ["PLATFORM", "RESOLVED", "Policy", "Resolver", "Wanted"]

Policy = Literal["missing", "always", "never"]
"""When the registry is asked what a tag names: where the store does not know it, always, never."""

RESOLVED = "dev.moorage.resolved"
PLATFORM = "dev.moorage.platform"
_MAX_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """``manifest``: the image's; ``named``: the digest that the reference names, an index's if one was chosen from.

    ``is_published``: the store says all this under the reference already.
    """

    manifest: Manifest
    named: Digest
    is_published: bool = False


@dataclass(frozen=True, slots=True)
class Resolver:
    """Finds the manifest of one reference for one platform."""

    registry: Reader
    reference: Reference
    store: Store
    platform: Platform

    async def find(self, policy: Policy) -> Wanted:
        """The image to pull.

        Raises:
            ManifestUnknown: neither the registry nor, where it may not be asked, the store has it.
            NoMatchingPlatform: its index has none for the platform.
            OciError: what the registry refused.
        """
        if policy not in get_args(Policy):  # a misspelt one would do as the most careless
            raise ValueError(f"a policy is one of {', '.join(get_args(Policy))}, not {policy!r}")
        known = await in_thread(self._find_in_store)
        if known is None:
            if policy == "never":
                raise ManifestUnknown(f"{self.reference}: not in the store")
            return await self._ask()
        if policy != "always" or self.reference.digest is not None:
            return known
        now = await self.registry.resolve_manifest(self.reference.repository, self.reference.target)
        return known if now.digest == known.named else await self._ask()

    def annotations(self, wanted: Wanted) -> dict[str, str] | None:
        """What the tag's entry has to remember beside the manifest's digest."""
        if wanted.named == wanted.manifest.digest:
            return None
        return {RESOLVED: str(wanted.named), PLATFORM: str(self.platform)}

    async def _ask(self) -> Wanted:
        repository = self.reference.repository
        manifest = await self.registry.read_manifest(repository, self.reference.target)
        named = manifest.digest
        for _ in range(_MAX_DEPTH):
            if manifest.media_type not in INDEX_TYPES:
                return Wanted(manifest, named)
            chosen = choose(manifest.document.manifests, self.platform)
            stored = await in_thread(partial(self._load, chosen))
            manifest = stored or await self.registry.read_manifest(repository, chosen.digest)
        raise ImageError(f"indexes nested deeper than {_MAX_DEPTH} levels")

    def _find_in_store(self) -> Wanted | None:
        catalog, reference = self.store.view(self.reference.registry).catalog, self.reference
        entry = catalog.entry(reference.repository, reference.tag) if reference.tag else None
        known = self._read_entry(entry) if entry else None
        if reference.digest is None or (known and reference.digest in (known.named, known.manifest.digest)):
            return known
        return self._find_digest(catalog, reference.digest)

    def _find_digest(self, catalog: Catalog, digest: Digest) -> Wanted | None:
        """What has the digest, or was once chosen from the index that has it."""
        entry: Descriptor | None
        try:
            entry = catalog.resolve(self.reference.repository, digest)
        except ManifestUnknown:
            noted = {RESOLVED: str(digest), PLATFORM: str(self.platform)}
            entries = catalog.entries(self.reference.repository)
            entry = next((e for e in entries if noted.items() <= dict(e.annotations or {}).items()), None)
        manifest = self._descend(entry) if entry else None
        return Wanted(manifest, digest, is_published=self.reference.tag is None) if manifest else None

    def _read_entry(self, entry: Descriptor) -> Wanted | None:
        """What a tag's entry says of the platform."""
        noted = entry.annotations or {}
        if noted.get(PLATFORM, str(self.platform)) != str(self.platform):
            return None
        manifest = self._descend(entry)
        if manifest is None:
            return None
        return Wanted(manifest, Digest.parse(noted.get(RESOLVED, str(entry.digest))), is_published=True)

    def _descend(self, found: Descriptor) -> Manifest | None:
        """The image below a manifest, as far as the store has it."""
        manifest = self._load(found)
        for _ in range(_MAX_DEPTH):
            if manifest is None or manifest.media_type not in INDEX_TYPES:
                return manifest
            manifest = self._load(choose(manifest.document.manifests, self.platform))
        return None

    def _load(self, descriptor: Descriptor) -> Manifest | None:
        try:
            return load_manifest(self.store.files, descriptor)
        except (BlobUnknown, LayoutInvalid):
            return None
