"""What the operator's verbs share: which server is meant, its files and its store, and how a failure is said.

Law: settings come from where `serve` takes them; whatever the world does wrong ends in one line on stderr.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click
from moorage.auth.configuration import AuthConfig
from moorage.auth.errors import AuthError
from moorage.auth.robots import Robots
from moorage.registry.auth_state import StoredState
from moorage.registry.settings import Settings, SettingsError, load_settings
from moorage.registry.store import LocalRegistry
from moorage.storage_backends.errors import StorageError
from moorage.storage_backends.urls import open_store

__all__ = [
    "Refused",
    "accounts_file",
    "loaded",
    "one_line",
    "print_rows",
    "require_owner",
    "say",
    "server_settings",
    "with_robots",
]

_T = TypeVar("_T")


class Refused(Exception):
    """What was asked for cannot be done; the message is one line."""


def accounts_file(where: Mapping[str, Any]) -> str:
    """The htpasswd file that is meant."""
    if where["htpasswd"]:
        return str(where["htpasswd"])
    settings = server_settings(where)
    config = loaded(settings)
    if config is None or config.htpasswd is None:
        raise Refused("which accounts? name the file by --htpasswd FILE, $MOORAGE_HTPASSWD or the --auth file")
    return config.htpasswd


def server_settings(where: Mapping[str, Any]) -> Settings:
    """The server's settings, by the same rules as for `serve`."""
    flags = {name: value for name, value in where.items() if value is not None and name != "config"}
    return load_settings(flags, os.environ, config=where["config"]).settings


def loaded(settings: Settings) -> AuthConfig | None:
    """Who may do what; None where nobody is asked for a login."""
    if settings.auth is not None:
        return AuthConfig.load(settings.auth)
    return AuthConfig.open_to_accounts(settings.htpasswd) if settings.htpasswd is not None else None


def with_robots(settings: Settings, call: Callable[[Robots], Awaitable[_T]]) -> _T:
    """What ``call`` makes of the robots in the server's root."""
    if "://" not in settings.root and not os.path.isdir(settings.root):
        raise Refused(f"there is no directory {settings.root}: name the server's root by --root")

    async def run() -> _T:
        store = await open_store(settings.root)
        try:
            await LocalRegistry.open(store)  # refuses what is no registry's
            return await call(Robots(StoredState(store)))
        finally:
            await store.close()

    return asyncio.run(run())


def require_owner(root: str) -> None:
    """Files that another user makes in a server's directory are files that the server cannot change."""
    if "://" in root or not os.path.isdir(root):
        return
    owner = os.stat(root).st_uid
    if owner != os.geteuid():
        raise Refused(f"{root} belongs to the user {_login_name(owner)}: run this as that user, as the server does")


def _login_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def print_rows(rows: Sequence[Mapping[Any, object]], *, as_json: bool) -> None:
    """One line per row: a JSON document, or its values in columns."""
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    texts = [[str(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for text in texts:
        click.echo("  ".join(value.ljust(width) for value, width in zip(text, widths, strict=True)).rstrip())


@contextmanager
def one_line() -> Iterator[None]:
    """What cannot be done is said in one line, and is status 1; wrong settings are status 2."""
    try:
        yield
    except SettingsError as exc:
        _fail(str(exc), 2)
    except (Refused, AuthError, StorageError) as exc:
        _fail(str(exc), 1)


def say(line: str) -> None:
    """Tells the operator one line, on stderr: stdout is for what was asked for."""
    click.echo(line, err=True)


def _fail(line: str, status: int) -> NoReturn:
    click.echo(f"moorage: {line}", err=True)
    sys.exit(status)
