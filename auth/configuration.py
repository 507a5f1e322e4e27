"""What ``--auth FILE`` says, as values. Law: a value that exists has been checked; nothing is guessed.

``configuration_file`` knows the form of the file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from moorage.auth.patterns import RepositoryPattern, TextPattern
from moorage.auth.policy import Action, Policy, Rule
from moorage.auth.principal import PUBLISHER
from moorage.auth.watched import WatchedFile

__all__ = ["TTL", "AuthConfig", "ClaimRule", "IssuerConfig", "PublisherConfig", "TokenIssuerConfig"]

TTL: Final = 300
"""Seconds for which a token is good unless the file says otherwise (T5: what is taken away ends that soon)."""

_EVERY_REPOSITORY: Final = (RepositoryPattern("**"),)


@dataclass(frozen=True, slots=True)
class IssuerConfig:
    """A CI system, or any OpenID provider, whose tokens trusted publishers log in with.

    ``url``: the issuer, exactly as its tokens name it. ``keys``: a JWKS file in place of discovery. ``ca``: PEM file
    with the authorities that vouch for its server, in place of the system's.
    """

    name: str
    url: str
    audience: str
    algorithms: tuple[str, ...] = ("RS256",)
    ca: str | None = None
    keys: str | None = None


@dataclass(frozen=True, slots=True)
class TokenIssuerConfig:
    """An external token server of the docker protocol, whose tokens are taken as they are.

    One of ``certificates`` (PEM bundle), ``jwks_file`` and ``jwks_url`` is given. ``repositories``: those it may
    speak for; what its tokens say about others is not believed. ``realm``: where it gives tokens, if clients are to be
    sent there and not to us.
    """

    name: str
    issuer: str
    service: str
    algorithms: tuple[str, ...]
    repositories: tuple[RepositoryPattern, ...]
    certificates: str | None = None
    jwks_file: str | None = None
    jwks_url: str | None = None
    ca: str | None = None
    realm: str | None = None


@dataclass(frozen=True, slots=True)
class ClaimRule:
    """What one claim must be. ``path``: its name, and those of the objects it lies in; any of ``allowed`` will do.

    Numbers and booleans in a token are compared as JSON writes them (``true``, ``42``).
    """

    path: tuple[str, ...]
    allowed: tuple[TextPattern, ...]


@dataclass(frozen=True, slots=True)
class PublisherConfig:
    """A trusted publisher: CI jobs whose token holds all ``claims`` may do ``actions`` in ``repositories``.

    ``ttl``: seconds for which a token of theirs is good.
    """

    name: str
    issuer: str
    claims: tuple[ClaimRule, ...]
    repositories: tuple[RepositoryPattern, ...]
    actions: frozenset[Action]
    ttl: int = 900

    def rule(self) -> Rule:
        """The ordinary rule that it is, for the group of those whom it matched."""
        group = f"{PUBLISHER}{self.name}"
        return Rule(group, self.repositories, self.actions, groups=frozenset({group}))


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Everything about who may do what. ``groups``: who is in each. ``policy``: with the publishers' rules in it.

    ``basic_only``: no token server, the challenge is Basic. ``token_ttl``: seconds, 60 to 900. ``certificates``: a PEM
    bundle for our signing key; then tokens are signed with ES256 and carry it.
    """

    policy: Policy
    htpasswd: str | None = None
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)
    issuers: tuple[IssuerConfig, ...] = ()
    token_issuers: tuple[TokenIssuerConfig, ...] = ()
    publishers: tuple[PublisherConfig, ...] = ()
    basic_only: bool = False
    token_ttl: int = TTL
    certificates: str | None = None
    _groups_of: Mapping[str, frozenset[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        members = {member for group in self.groups.values() for member in group}
        found = {who: frozenset(name for name, group in self.groups.items() if who in group) for who in members}
        object.__setattr__(self, "_groups_of", found)

    @classmethod
    def open_to_accounts(cls, htpasswd: str) -> Self:
        """What ``--htpasswd FILE`` alone means: every account, robots too, may do everything, nobody else anything."""
        everything = Rule("accounts", _EVERY_REPOSITORY, frozenset(Action), principals=frozenset({"*", "robot:*"}))
        return cls(Policy(rules=(everything,)), htpasswd=htpasswd)

    @classmethod
    def load(cls, path: str) -> AuthConfig:
        """What the YAML file says. Relative paths in it start at its directory.

        Raises:
            ConfigurationError: it cannot be read, or something in it is wrong; one line that says where and what.
        """
        return cls.watch(path).current()

    @classmethod
    def watch(cls, path: str, *, clock: Callable[[], float] = time.monotonic) -> WatchedFile[AuthConfig]:
        """What the YAML file says; it is read again when it changes.

        Raises:
            ConfigurationError: it cannot be read, or something in it is wrong.
        """
        from moorage.auth.configuration_file import parse_configuration  # noqa: PLC0415  # it builds these values

        return WatchedFile(path, lambda path, raw, _: parse_configuration(path, raw), clock=clock)

    @property
    def token_server(self) -> TokenIssuerConfig | None:
        """Whom clients are sent to for tokens; None: to us."""
        return next((one for one in self.token_issuers if one.realm), None)

    def groups_of(self, name: str) -> frozenset[str]:
        """The groups that hold the principal called ``name``."""
        return self._groups_of.get(name, frozenset())
