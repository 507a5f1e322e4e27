"""Credentials, and whom they are for.

Law: a secret is a value that does not print. Credentials are looked up for one origin (scheme, host and port) and,
where a source distinguishes them, one repository; what is stored for another origin never matches (rule N2).
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Protocol

from moorage.puller.errors import CredentialsUnusable
from moorage.puller.origins import Origin
from moorage.registry.oci.values import dataclass

__all__ = ["DOCKER_HUB", "Credentials", "Finding", "Source", "Target", "read_basic"]

DOCKER_HUB = "registry-1.docker.io"
"""Docker Hub, by the name that references have for it."""

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What proves who we are: a password, or a token of one of two kinds.

    ``identity_token`` is given to the token service in exchange for a token (a "refresh token"); ``registry_token`` is
    shown to the registry as it is.
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"<Credentials of {self.who}: ***>"

    @property
    def who(self) -> str:
        """The user, to show."""
        if self.username:
            return repr(self.username)
        return "an identity token" if self.identity_token else "a registry token"

    @property
    def basic(self) -> str:
        """The value of an Authorization header with user and password."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Target:
    """Whom credentials are wanted for. ``repository``: its name, or empty where it is not about one."""

    origin: Origin
    repository: str = ""

    @property
    def registry(self) -> str:
        """The registry as references name it: ``host``, with the port where that is not the usual one."""
        host = f"[{self.origin.host}]" if ":" in self.origin.host else self.origin.host
        return host if self.origin.port == _PORTS[self.origin.scheme] else f"{host}:{self.origin.port}"

    @property
    def is_docker_hub(self) -> bool:
        """Whether the registry is Docker Hub, which has several names."""
        return self.origin == Origin("https", DOCKER_HUB, 443)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one source knows of a target.

    ``reason`` says in a few words what was found or why nothing was. ``helper``: the program to ask for the
    credentials, where the source only names one; ``servers``: what it may know the registry by. ``is_failure``: there
    is something that cannot be understood.
    """

    source: str
    reason: str
    credentials: Credentials | None = None
    helper: str | None = None
    servers: tuple[str, ...] = ()
    is_failure: bool = False

    def answered(self, credentials: Credentials | None, reason: str) -> Finding:
        """The same after the helper was asked."""
        return replace(self, credentials=credentials, reason=reason, helper=None)


class Source(Protocol):
    """A place where credentials may be."""

    @property
    def name(self) -> str:
        """What to call the place."""
        ...

    def look(self, target: Target) -> list[Finding]:
        """What is there, best first; never empty, so that it can be told why nothing was. Blocks for a file's sake.

        Raises:
            CredentialsUnusable: there is something that cannot be understood.
        """
        ...


def read_basic(encoded: str, *, where: str) -> Credentials:
    """User and password from the base64 of ``user:password``.

    Raises:
        CredentialsUnusable: it is something else; the message says ``where``.
    """
    try:
        username, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        colon = ""
    if not colon:
        raise CredentialsUnusable(f"{where}: 'auth' is not the base64 of user:password")
    return Credentials(username, password.rstrip("\0"))
