"""Scopes: which actions on which resources a token is for, in the grammar of the docker token protocol.

Law: a scope is a set of single permissions, so that union is union and "covers" is "contains"; the action ``*`` stands
for all. Written, it is ``type(class):name:action,action``, several separated by a space; since a name may begin with
``host:port/``, the type ends at the first colon and the actions begin after the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

__all__ = ["Resource", "Scope"]

_ENTRY = re.compile(
    r"(?P<type>[a-z0-9]+)(?:\((?P<class>[a-z0-9]+)\))?:(?P<name>[!#-\[\]-~]+):(?P<actions>[A-Za-z_*-]+(?:,[A-Za-z_*-]+)*)"
)
_EVERYTHING = "*"


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """What is acted on. ``kind``: the class in parentheses, which plugins used; mostly empty."""

    type: str
    name: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.type}({self.kind}):{self.name}" if self.kind else f"{self.type}:{self.name}"


@dataclass(frozen=True, slots=True)
class Scope:
    """A set of permissions: pairs of a resource and an action. Falsy where it is empty."""

    permissions: frozenset[tuple[Resource, str]] = frozenset()

    def __post_init__(self) -> None:
        """What ``*`` includes is not said again, so that equal scopes are equal values."""
        everything = {resource for resource, action in self.permissions if action == _EVERYTHING}
        kept = (one for one in self.permissions if one[1] == _EVERYTHING or one[0] not in everything)
        object.__setattr__(self, "permissions", frozenset(kept))

    @classmethod
    def of(cls, resource: Resource, actions: Iterable[str]) -> Scope:
        """The permissions for ``actions`` on one resource."""
        return cls(frozenset((resource, action) for action in actions))

    @classmethod
    def repository(cls, name: object, *actions: str) -> Scope:
        """The permissions for ``actions`` on the repository ``name``."""
        return cls.of(Resource("repository", str(name)), actions)

    @classmethod
    def parse(cls, raw: str) -> Scope:
        """The scope written as ``raw``; an empty text is the empty scope.

        Raises:
            ValueError: a part of it breaks the grammar.
        """
        return cls(frozenset(permission for entry in raw.split() for permission in _read(entry)))

    def __or__(self, other: Scope) -> Scope:
        return Scope(self.permissions | other.permissions)

    def covers(self, other: Scope) -> bool:
        """Whether everything that ``other`` permits is permitted here."""
        return all({one, (one[0], _EVERYTHING)} & self.permissions for one in other.permissions)

    def __iter__(self) -> Iterator[str]:
        """Each resource with its actions as it is written, in a fixed order."""
        for resource, group in groupby(sorted(self.permissions), key=lambda one: one[0]):
            yield f"{resource}:{','.join(action for _, action in group)}"

    def __bool__(self) -> bool:
        return bool(self.permissions)

    def __str__(self) -> str:
        return " ".join(self)


def _read(entry: str) -> Iterator[tuple[Resource, str]]:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ValueError(f"not a scope: {entry[:256]!r}")
    resource = Resource(match["type"], match["name"], match["class"] or "")
    for action in match["actions"].split(","):
        yield resource, action
