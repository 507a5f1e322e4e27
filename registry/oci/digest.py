"""Digests: content is named by its hash.

Rule: a ``Digest`` exists only if it was parsed or computed, so no path, key or URL is ever built from unchecked text
(rules A6, A7). To support another algorithm, add it to ``ALGORITHMS``; nothing else changes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Protocol

from moorage.registry.oci.errors import DigestInvalid
from moorage.registry.oci.values import dataclass

__all__ = ["ALGORITHMS", "CANONICAL", "Algorithm", "Digest", "Hasher"]


class Hasher(Protocol):
    """A running hash, as ``hashlib`` makes them."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """The hash of everything so far, in lower-case hex."""

    def copy(self) -> Hasher:
        """An independent hash with the same state."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A registered digest algorithm (image-spec descriptor.md)."""

    name: str
    hex_length: int
    new: Callable[[], Hasher]


ALGORITHMS: Mapping[str, Algorithm] = {
    "sha256": Algorithm("sha256", 64, hashlib.sha256),
    "sha512": Algorithm("sha512", 128, hashlib.sha512),
}
CANONICAL = "sha256"
_GRAMMAR = re.compile("|".join(f"{a.name}:[0-9a-f]{{{a.hex_length}}}" for a in ALGORITHMS.values()))
_SHAPE = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """``algorithm:hex``, lower-case, of a supported algorithm."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, raw: str) -> Digest:
        """The digest written as ``raw``.

        Raises:
            DigestInvalid: not a digest, or of an algorithm that is not supported.
        """
        if _GRAMMAR.fullmatch(raw) is None:
            known = ", ".join(ALGORITHMS)
            reason = f"unsupported algorithm (supported: {known})" if _is_foreign(raw) else "malformed digest"
            raise DigestInvalid(reason, detail={"digest": raw[:256]})
        algorithm, _, encoded = raw.partition(":")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, content: bytes, algorithm: str = CANONICAL) -> Digest:
        """The digest of ``content``."""
        return cls(algorithm, hashlib.new(algorithm, content, usedforsecurity=False).hexdigest())

    def hasher(self) -> Hasher:
        """A fresh hash of this digest's algorithm."""
        return ALGORITHMS[self.algorithm].new()

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def _is_foreign(raw: str) -> bool:
    return _SHAPE.fullmatch(raw) is not None and raw.partition(":")[0] not in ALGORITHMS
