"""Who acts. Law: a name carries its namespace, and only configuration and our own code make a namespace.

``alice`` is an account of the htpasswd file; ``robot:ci`` a robot; ``oidc:<issuer>:<sub>`` a CI job that proved itself
with its own token; ``issuer:<issuer>:<sub>`` whoever an external token server vouches for. So nobody outside can be
named like somebody inside (rule T6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ANONYMOUS", "ISSUER", "OIDC", "PUBLISHER", "ROBOT", "Principal", "printable"]

ROBOT: Final = "robot:"
OIDC: Final = "oidc:"
ISSUER: Final = "issuer:"
PUBLISHER: Final = "publisher:"
"""Namespace of groups: ``publisher:<name>`` holds the CI jobs that a trusted publisher's rules matched."""

_LONGEST = 255


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody or something that acts; the empty name is nobody in particular. ``groups``: as they are today."""

    name: str
    groups: frozenset[str] = frozenset()

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody said who they are."""
        return not self.name

    def __str__(self) -> str:
        """The name for messages and logs, on one line whatever an issuer put into it."""
        return printable(self.name) or "anonymous"


ANONYMOUS: Final = Principal("")


def printable(text: str) -> str:
    """``text`` on one line, at most 255 characters of it, what does not print written as an escape."""
    text = text[:_LONGEST]
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
