"""What a token says: its two JSON parts, and the claims that must hold before anything in it is believed.

Law: reading is strict and total. A key that stands twice, a number that is no whole one, or an issuer that is a list is
not a variant but a damaged token (rule T3); every check says in one word what failed. The clock is an argument.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from moorage.auth.errors import ExpiredToken, InvalidToken
from moorage.auth.scope import Resource, Scope

__all__ = ["LEEWAY", "check_audience", "check_times", "read_access", "read_object", "text_of", "written_access"]

LEEWAY: Final = 30
"""Seconds by which the clocks of two machines may differ."""

_LAST_MOMENT: Final = 1 << 53
_LONGEST_TEXT: Final = 255


def read_object(content: bytes, *, part: str) -> dict[str, Any]:
    """The JSON object that a part of a token is.

    Raises:
        InvalidToken: it is something else; the reason is ``part``.
    """
    try:
        document = json.loads(content, object_pairs_hook=_without_twins, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise InvalidToken(part) from None
    if not isinstance(document, dict):
        raise InvalidToken(part)
    return document


def text_of(claims: Mapping[str, Any], name: str) -> str:
    """A claim that must be a text of at most 255 characters that print; it may be empty.

    Raises:
        InvalidToken: it is missing or something else.
    """
    text = claims.get(name)
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT or not text.isprintable():
        raise InvalidToken(name)
    return text


def check_audience(claims: Mapping[str, Any], audience: str) -> None:
    """That the token is for us: the audience is exactly ours, or a list with ours in it.

    Raises:
        InvalidToken: it is for somebody else.
    """
    told = claims.get("aud")
    audiences = told if isinstance(told, list) else [told]
    if not all(isinstance(one, str) for one in audiences) or audience not in audiences:
        raise InvalidToken("aud")


def check_times(claims: Mapping[str, Any], *, now: float, needed: Iterable[str] = ("exp", "iat")) -> int:
    """When the token expires, if it is good now: not expired, not from the future, each claim where it is present.

    Args:
        needed: the times that must be there.

    Raises:
        ExpiredToken: it was good once.
        InvalidToken: it is not good yet, or a time is missing or no whole number of seconds.
    """
    for name in needed:
        if name not in claims:
            raise InvalidToken(name)
    for name in ("iat", "nbf"):
        if name in claims and _moment(claims, name) > now + LEEWAY:
            raise InvalidToken(f"{name}-future")
    expires = _moment(claims, "exp")
    if now >= expires + LEEWAY:
        raise ExpiredToken
    return expires


def read_access(claims: Mapping[str, Any]) -> Scope:
    """What the ``access`` claim of a registry token grants (distribution's token specification); null is nothing.

    Raises:
        InvalidToken: it breaks the form.
    """
    entries = claims.get("access")
    if entries is None:
        return Scope()
    if not isinstance(entries, list):
        raise InvalidToken("access")
    permissions: set[tuple[Resource, str]] = set()
    for entry in entries:
        permissions |= _read_entry(entry)
    return Scope(frozenset(permissions))


def written_access(access: Scope) -> list[dict[str, Any]]:
    """The ``access`` claim for a scope, in a fixed order."""
    actions: dict[Resource, list[str]] = {}
    for resource, action in sorted(access.permissions):
        actions.setdefault(resource, []).append(action)
    return [_written_entry(resource, names) for resource, names in actions.items()]


def _read_entry(entry: object) -> set[tuple[Resource, str]]:
    if not isinstance(entry, dict):
        raise InvalidToken("access")
    kind, name, actions = entry.get("type"), entry.get("name"), entry.get("actions") or []
    texts = [kind, name, entry.get("class", ""), *(actions if isinstance(actions, list) else [None])]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidToken("access")
    resource = Resource(str(kind), str(name), str(entry.get("class", "")))
    return {(resource, action) for action in actions}


def _written_entry(resource: Resource, actions: list[str]) -> dict[str, Any]:
    written: dict[str, Any] = {"type": resource.type, "name": resource.name, "actions": actions}
    if resource.kind:
        written["class"] = resource.kind
    return written


def _moment(claims: Mapping[str, Any], name: str) -> int:
    """Whole seconds since 1970."""
    moment = claims[name]
    if type(moment) is not int or not 0 <= moment < _LAST_MOMENT:  # a bool is an int too
        raise InvalidToken(name)
    return moment


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
