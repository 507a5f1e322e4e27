"""The verbs about who we are: ``login``, ``logout``, ``explain-auth``.

Law: a password comes from a terminal or from stdin, never from the command line, where every process could read it; it
is kept only after the registry has taken it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import click
from moorage.puller.commands.ci_tokens import end_of, find_token
from moorage.puller.commands.running import run_async
from moorage.puller.credentials import Credentials, Keychain
from moorage.puller.credentials.explanation import Explanation, explain
from moorage.puller.credentials.model import Target
from moorage.puller.credentials.places import all_places
from moorage.puller.credentials.saving import forget_login, keep_login
from moorage.puller.errors import BadReference
from moorage.puller.hosts import HostConfig
from moorage.puller.origins import Origin
from moorage.puller.references import parse_reference
from moorage.puller.remote import RemoteRegistry
from moorage.puller.show.console import say, to_json
from moorage.puller.show.text import printable
from moorage.puller.transport import Transport

__all__ = ["explain_auth", "login", "logout"]

_PASSWORD_LIMIT = 64 * 1024
_CI_USER = "oidc"
"""Who logs in with a CI's token instead of a password, at registries that know trusted publishers."""


def login(registry: str, username: str | None, password_stdin: bool, oidc: bool, audience: str | None) -> Iterator[str]:
    """Checks a login with the registry, then keeps it."""
    hosts = HostConfig.load()
    host = hosts.of(_parse_registry(registry))
    for remark in host.remarks:
        say(remark)
    if oidc:
        credentials = run_async(_identify(host.registry, hosts, audience))
    else:
        credentials = _ask(host.registry, username, password_stdin=password_stdin)
    was_asked = run_async(_check(host.registry, credentials, hosts))
    if not was_asked:
        say(f"{host.origin} asked for no login: the password could not be checked")
    target = Target(host.origin)
    path, helper = keep_login(credentials, target, os.environ)
    _warn_of_others(target, path)
    place = f"by the helper {helper!r} that {path} names" if helper else f"in {path}"
    yield printable(f"logged in to {host.registry} as {credentials.username}, kept {place}")
    if oidc and (end := end_of(credentials.password)):
        yield f"the job's token is good until {end:%Y-%m-%d %H:%M:%S} UTC; what it started may go on"


def logout(registry: str) -> Iterator[str]:
    """Forgets a login."""
    host = HostConfig.load().of(_parse_registry(registry))
    target = Target(host.origin)
    places = forget_login(target, os.environ)
    _warn_of_others(target, None)
    if places:
        yield printable(f"logged out of {host.registry}, forgotten in {', '.join(places)}")
    else:
        yield printable(f"nobody was logged in to {host.registry}")


def explain_auth(reference: str, as_json: bool) -> Iterator[str]:
    """Tells which place supplies the login for a reference, and why the others do not."""
    for explanation in _explanations(reference):
        if as_json:
            yield to_json(explanation.to_json())
        else:
            yield from map(printable, explanation.to_lines())


def _explanations(reference: str) -> Iterator[Explanation]:
    wanted, hosts, keychain = parse_reference(reference), HostConfig.load(), Keychain.default()
    host = hosts.of(wanted.registry)
    for mirror in host.mirrors:
        there = hosts.of(mirror.registry)
        target = Target(there.origin, mirror.name_of(str(wanted.repository)))
        remarks = (f"is asked first, as a mirror of {host.registry}", *there.remarks)
        yield explain(keychain, target, reference=str(wanted), remarks=remarks)
    target = Target(host.origin, str(wanted.repository))
    yield explain(keychain, target, reference=str(wanted), remarks=host.remarks)


def _parse_registry(text: str) -> str:
    """The registry that a person typed; a name that would be a repository of Docker Hub is none."""
    reference = parse_reference(f"{text}/x")
    if str(reference.repository) not in ("x", "library/x"):
        raise BadReference(f"{text}: not a registry: write host.domain, host:port or docker.io")
    return reference.registry


def _ask(registry: str, username: str | None, *, password_stdin: bool) -> Credentials:
    if not password_stdin and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the password on: use --password-stdin")
    if username is None:
        if password_stdin:
            raise click.UsageError("--password-stdin needs --username")
        username = str(click.prompt(f"User for {registry}", err=True))
    if not username or ":" in username or not username.isprintable():
        raise click.UsageError("a user's name is not empty and has no colon in it")
    password = _read_password() if password_stdin else str(click.prompt("Password", hide_input=True, err=True))
    return Credentials(username, password)


def _read_password() -> str:
    """All of stdin, without the newline that ``echo`` ends it with."""
    content = sys.stdin.buffer.read(_PASSWORD_LIMIT + 1)
    try:
        password = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        password = ""
    if not password or len(content) > _PASSWORD_LIMIT:
        raise click.UsageError("there is no password on stdin")
    return password


async def _identify(registry: str, hosts: HostConfig, audience: str | None) -> Credentials:
    """The credentials of the CI job that we are in."""
    async with Transport(route=hosts.route) as transport:
        token = await find_token(os.environ, transport, registry=registry, audience=audience)
    return Credentials(_CI_USER, token)


class _Asked:
    """A keychain of one key, which remembers whether it was needed."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self.was_asked = False

    async def find(self, origin: Origin, repository: str = "") -> Credentials:
        """See ``Keys``."""
        self.was_asked = True
        return self._credentials


async def _check(registry: str, credentials: Credentials, hosts: HostConfig) -> bool:
    """Whether the registry asked who we are; that it did not like the answer is an error."""
    keys = _Asked(credentials)
    async with RemoteRegistry.connect(registry, keychain=keys, hosts=hosts) as remote:
        await remote.ping()
    return keys.was_asked


def _warn_of_others(target: Target, path: str | None) -> None:
    """Says what will be used instead of the file at ``path``, or although it was forgotten."""
    for place in all_places(os.environ):
        if path is not None and place.name == f"file {path}":
            return
        if any(finding.credentials or finding.helper for finding in place.look(target)):
            say(f"{place.name}: a login from there {'is used before this one' if path else 'is still used'}")
            return
