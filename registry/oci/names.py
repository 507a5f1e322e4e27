"""Names: registries, repositories, tags, and the references that people type.

Rule: the grammars of the distribution spec ("Pulling manifests"), matched whole and in ASCII; nothing is repaired.
Only ``Reference.parse`` fills in what docker users leave out.
"""

from __future__ import annotations

import re

from moorage.registry.oci.digest import Digest
from moorage.registry.oci.errors import NameInvalid, TagInvalid
from moorage.registry.oci.values import dataclass

__all__ = ["MAX_NAME", "MAX_TAG", "Reference", "RepositoryName", "Tag", "TagOrDigest", "parse_tag_or_digest"]

MAX_NAME = 255
MAX_TAG = 128
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?")
_DOCKER_HUB = "registry-1.docker.io"
_DOCKER_ALIASES = frozenset({"docker.io", "index.docker.io", _DOCKER_HUB})


@dataclass(frozen=True, slots=True, order=True)
class RepositoryName:
    """A repository name: slash-separated lower-case components, at most 255 characters."""

    value: str

    @classmethod
    def parse(cls, raw: str) -> RepositoryName:
        """The name written as ``raw``.

        Raises:
            NameInvalid: it breaks the grammar or is longer than 255 characters.
        """
        if len(raw) > MAX_NAME:
            raise NameInvalid(f"repository name longer than {MAX_NAME} characters", detail={"name": raw[:MAX_NAME]})
        if _NAME.fullmatch(raw) is None:
            raise NameInvalid(detail={"name": raw})
        return cls(raw)

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A tag: 1 to 128 characters, case-sensitive."""

    value: str

    @classmethod
    def parse(cls, raw: str) -> Tag:
        """The tag written as ``raw``.

        Raises:
            TagInvalid: it breaks the grammar or is longer than 128 characters.
        """
        if _TAG.fullmatch(raw) is None:
            raise TagInvalid(detail={"tag": raw[:256]})
        return cls(raw)

    def __str__(self) -> str:
        return self.value


TagOrDigest = Tag | Digest


def parse_tag_or_digest(raw: str) -> TagOrDigest:
    """The reference part of a manifest path: with a colon it is a digest, and never read as a tag.

    Raises:
        DigestInvalid, TagInvalid: it is neither.
    """
    return Digest.parse(raw) if ":" in raw else Tag.parse(raw)


@dataclass(frozen=True, slots=True)
class Reference:
    """Where an image is: registry host, repository, and a tag or digest or both (the digest then decides)."""

    registry: str
    repository: RepositoryName
    tag: Tag | None
    digest: Digest | None

    @classmethod
    def parse(cls, raw: str) -> Reference:
        """The reference that a person typed, with docker's defaults: Docker Hub, ``library/``, ``latest``.

        Raises:
            NameInvalid, TagInvalid, DigestInvalid: which part is wrong.
        """
        rest, at, digest_text = raw.partition("@")
        digest = Digest.parse(digest_text) if at else None
        head, slash, tail = rest.rpartition("/")
        last, colon, tag_text = tail.partition(":")
        tag = Tag.parse(tag_text) if colon else None
        registry, path = _split_host(f"{head}{slash}{last}")
        if tag is None and digest is None:
            tag = Tag("latest")
        return cls(registry, RepositoryName.parse(path), tag, digest)

    @property
    def target(self) -> TagOrDigest:
        """What to ask the registry for: the digest where there is one, else the tag."""
        if self.digest is not None:
            return self.digest
        return self.tag or Tag("latest")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def _split_host(path: str) -> tuple[str, str]:
    """Docker's rule: the first component is a host if it has a dot, a colon, or is ``localhost``."""
    first, slash, rest = path.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    host, name = (first, rest) if is_host else ("docker.io", path)
    if _HOST.fullmatch(host) is None:
        raise NameInvalid(f"invalid registry host {host!r}", detail={"registry": host[:256]})
    if host in _DOCKER_ALIASES:
        host, name = _DOCKER_HUB, name if "/" in name else f"library/{name}"
    return host, name
