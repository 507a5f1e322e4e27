"""docker's ``config.json`` and podman's ``auth.json``: one format, read strictly where it concerns the registry.

Rule: a helper named for the registry is asked first, then a store that serves all registries, then what stands in the
file itself. What cannot be understood is an error that names the file, never "no credentials".
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from moorage.puller.credentials.model import Credentials, Finding, Target, read_basic
from moorage.puller.credentials.names import best_first, servers_of
from moorage.puller.errors import CredentialsUnusable
from moorage.registry.oci.values import dataclass

__all__ = ["AuthFile", "AuthText", "configured_helper", "entries_of", "look_into", "parse_document", "read_document"]

_LIMIT = 1024 * 1024
"""Bytes; the largest real files hold a few dozen entries."""

_FIELDS = ("auth", "username", "password", "identitytoken", "registrytoken")


@dataclass(frozen=True, slots=True)
class AuthFile:
    """A file of credentials. ``instead``: why it is not looked at, if it is not."""

    path: str
    instead: str = ""

    @property
    def name(self) -> str:
        """See ``Source``."""
        return f"file {self.path}"

    def look(self, target: Target) -> list[Finding]:
        """See ``Source``."""
        if self.instead:
            return [Finding(self.name, self.instead)]
        document = read_document(self.path)
        if document is None:
            return [Finding(self.name, "there is no such file")]
        return list(look_into(document, target, self.name))


@dataclass(frozen=True, slots=True)
class AuthText:
    """The content of such a file in a variable, as GitLab's runners and docker's CLI take it."""

    variable: str
    text: str | None

    @property
    def name(self) -> str:
        """See ``Source``."""
        return f"variable {self.variable}"

    def look(self, target: Target) -> list[Finding]:
        """See ``Source``."""
        if not self.text:
            return [Finding(self.name, "is not set")]
        return list(look_into(parse_document(self.text.encode(), self.name), target, self.name))


def read_document(path: str) -> dict[str, Any] | None:
    """The file's content; None if there is no such file.

    Raises:
        CredentialsUnusable: it cannot be read, or is not a JSON object.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise CredentialsUnusable(f"{path}: cannot be read ({os.strerror(exc.errno or 0)})") from exc
    return parse_document(content, path)


def parse_document(content: bytes, where: str) -> dict[str, Any]:
    """The JSON object in ``content``; an empty file is an empty one.

    Raises:
        CredentialsUnusable: it is something else, says a name twice, or is longer than 1 MiB.
    """
    if len(content) > _LIMIT:
        raise CredentialsUnusable(f"{where}: cannot be read as credentials, it is longer than {_LIMIT} bytes")
    try:
        document = json.loads(content, object_pairs_hook=_unique) if content.strip() else {}
    except (ValueError, RecursionError) as exc:
        why = "a name stands twice" if isinstance(exc, _Twice) else "it is not JSON"
        raise CredentialsUnusable(f"{where}: cannot be read as credentials, {why}") from None
    return _mapping(document, where, "it")


def look_into(document: Mapping[str, Any], target: Target, where: str) -> Iterator[Finding]:
    """What a file says of ``target``, best first.

    Raises:
        CredentialsUnusable: what it says is not in the format.
    """
    helper, named_by = configured_helper(document, target, where)
    if helper:
        yield Finding(where, f"{named_by} names the helper {helper!r}", helper=helper, servers=servers_of(target))
    entries = entries_of(document, where)
    names = best_first(entries, target)
    for name in names:
        credentials = _read_entry(_mapping(entries[name], where, f"the entry {name!r}"), f"{where}: {name!r}")
        yield Finding(where, f"its entry {name!r}" if credentials else f"its entry {name!r} is empty", credentials)
    if not names:
        yield Finding(where, f"it has no entry for {target.registry}")


def entries_of(document: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The entries of a file, by name.

    Raises:
        CredentialsUnusable: they are not in the format.
    """
    return _mapping(document.get("auths"), where, "'auths'")


def configured_helper(document: Mapping[str, Any], target: Target, where: str) -> tuple[str, str]:
    """The helper that keeps the credentials of ``target``, and the setting that names it; empty where none does.

    Raises:
        CredentialsUnusable: the settings are not in the format.
    """
    named = _mapping(document.get("credHelpers"), where, "'credHelpers'")
    for name in best_first(named, target):  # an empty name switches the common store off for one registry
        return _text(named[name], where, f"the helper of {name!r}"), "credHelpers"
    return _text(document.get("credsStore"), where, "'credsStore'"), "credsStore"


def _read_entry(entry: Mapping[str, Any], where: str) -> Credentials | None:
    auth, username, password, identity, registry = (_text(entry.get(field), where, f"{field!r}") for field in _FIELDS)
    basic = read_basic(auth, where=where) if auth else Credentials(username, password)
    found = Credentials(basic.username, basic.password, identity, registry)
    return found if found.password or found.identity_token or found.registry_token else None


def _mapping(value: object, where: str, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CredentialsUnusable(f"{where}: cannot be read as credentials, {what} is not a JSON object")
    return value


def _text(value: object, where: str, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CredentialsUnusable(f"{where}: cannot be read as credentials, {what} is not a text")
    return value


class _Twice(ValueError):
    """A name stands twice in one object: two programs would read two different files."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Twice
    return found
