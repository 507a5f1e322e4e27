"""What names in a layout mean: two ways of writing a place in a registry as ``org.opencontainers.image.ref.name``."""

from __future__ import annotations

from moorage.registry.oci import (
    Digest,
    DigestInvalid,
    NameInvalid,
    NameUnknown,
    RepositoryName,
    Tag,
    TagInvalid,
    TagOrDigest,
    parse_tag_or_digest,
)
from moorage.registry.oci.values import dataclass

__all__ = ["BareTags", "FullReferences", "Place", "RefNames"]

Place = tuple[RepositoryName, TagOrDigest | None]


@dataclass(frozen=True, slots=True)
class FullReferences:
    """Names are full references to one registry."""

    registry: str

    def write(self, repository: RepositoryName, target: TagOrDigest) -> str | None:
        """``registry/repository:tag`` or ``registry/repository@digest``."""
        return f"{self.registry}/{repository}{'@' if isinstance(target, Digest) else ':'}{target}"

    def read(self, ref_name: str | None) -> Place | None:
        """See ``RefNames``."""
        host, _, rest = (ref_name or "").partition("/")
        name, mark, target = rest.partition("@") if "@" in rest else rest.rpartition(":")
        if host != self.registry or not mark:
            return None
        try:
            return RepositoryName.parse(name), parse_tag_or_digest(target)
        except (NameInvalid, TagInvalid, DigestInvalid):
            return None


@dataclass(frozen=True, slots=True)
class BareTags:
    """Names are tags of one repository."""

    repository: RepositoryName

    def write(self, repository: RepositoryName, target: TagOrDigest) -> str | None:
        """The tag; entries of a digest have no name."""
        if repository != self.repository:
            raise NameUnknown(f"this layout is the one repository {self.repository}")
        return str(target) if isinstance(target, Tag) else None

    def read(self, ref_name: str | None) -> Place | None:
        """See ``RefNames``. A name that is no tag stays another tool's business."""
        try:
            return self.repository, None if ref_name is None else Tag.parse(ref_name)
        except TagInvalid:
            return None


RefNames = FullReferences | BareTags
