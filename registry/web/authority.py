"""Everything that knows who somebody is, put together: accounts, robots, CI jobs, tokens of ours and of others.

Law: the operator's files are followed while we run, and only as a whole: what belongs to one version of the
configuration is made together, and a version that cannot be used changes nothing. Nothing is kept here that another
worker or replica would need: keys are in a file, robots and refresh tokens in the store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from moorage.auth.configuration import AuthConfig
from moorage.auth.directory import Directory
from moorage.auth.errors import ConfigurationError, InvalidToken
from moorage.auth.htpasswd import Htpasswd
from moorage.auth.issuers import KeySource, token_issuers
from moorage.auth.keys import KeyRing
from moorage.auth.limits import Limits
from moorage.auth.principal import OIDC, Principal
from moorage.auth.publishers import Publishers
from moorage.auth.refresh import RefreshTokens
from moorage.auth.scope import Scope
from moorage.auth.state import State
from moorage.auth.tokens import IssuedToken, TokenSigner, TokenVerifier
from moorage.registry.settings import Settings
from moorage.registry.web.shown import Basic
from moorage.registry.wrap.rights import Rights

__all__ = ["CI_USER", "Authority", "Foundation", "lay_foundation"]

_log = logging.getLogger(__name__)

CI_USER: Final = "oidc"
"""The user name of CI jobs: the password is the token of their CI system."""

_REFRESHING: Final = "refresh"
"""As whom those are counted who guess at refresh tokens."""

_UNNAMED: Final = "moorage"
"""Issuer and service of our tokens where no ``--external-url`` gives this registry a name."""


@dataclass(frozen=True, slots=True)
class Foundation:
    """What is made once, before the workers are forked. ``config``: the configuration as it is when asked."""

    ring: KeyRing
    config: Callable[[], AuthConfig]
    issuer: str
    service: str


def lay_foundation(settings: Settings) -> Foundation:
    """Reads the operator's files, and makes the signing key if there is none.

    Raises:
        ConfigurationError: one of them cannot be used; one line that says which and why.
    """
    if settings.auth is not None:
        config: Callable[[], AuthConfig] = AuthConfig.watch(settings.auth).current
    else:
        opened = AuthConfig.open_to_accounts(settings.htpasswd or "")
        config = lambda: opened  # noqa: E731  # a constant, asked like the other one
    if config().htpasswd is not None:
        Htpasswd.watch(config().htpasswd or "")
    url = settings.external_url
    ring = KeyRing.create(settings.signing_key_file)
    foundation = Foundation(ring, config, url or _UNNAMED, url.partition("://")[2] if url else _UNNAMED)
    TokenSigner(ring, issuer=foundation.issuer, service=foundation.service, certificates=config().certificates)
    return foundation


@dataclass(frozen=True, slots=True)
class _Version:
    """What belongs to one version of the configuration."""

    config: AuthConfig
    signer: TokenSigner
    verifier: TokenVerifier
    publishers: Publishers

    @classmethod
    def of(cls, config: AuthConfig, foundation: Foundation, source: KeySource) -> Self:
        ring, issuer, service = foundation.ring, foundation.issuer, foundation.service
        return cls(
            config,
            TokenSigner(ring, issuer=issuer, service=service, certificates=config.certificates),
            TokenVerifier(ring, issuer=issuer, service=service, issuers=token_issuers(config, source)),
            Publishers.of(config, source),
        )


class Authority:
    """Who is asking, in one worker.

    Args:
        state: where robots and refresh tokens are kept.
        source: how keys of others are fetched.

    Attributes:
        ring: the keys that sign.
        service: for which tokens of ours are.
        refresh: the refresh tokens.

    Raises:
        ConfigurationError: a file that the configuration names cannot be used.
    """

    def __init__(self, foundation: Foundation, state: State, source: KeySource) -> None:
        self.ring, self.service = foundation.ring, foundation.service
        self._foundation, self._source = foundation, source
        self._limits = Limits(clock=time.monotonic)
        self._refused: AuthConfig | None = None
        self._version = _Version.of(foundation.config(), foundation, source)
        self._directory = Directory(lambda: self._version.config, state)  # of the version that a request began with
        self.refresh = RefreshTokens(state, self._directory)

    @property
    def config(self) -> AuthConfig:
        """The configuration that is in use."""
        return self._current().config

    def rights_of_nobody(self) -> Rights:
        """What everybody may do."""
        return Rights(Principal(""), self.config.policy)

    async def log_in(self, shown: Basic, client: str) -> Principal:
        """Who shows a password, a robot's secret, or as the user ``oidc`` the token of a CI job.

        Args:
            client: the address that it comes from.

        Raises:
            BadCredentials: it is wrong.
            TooManyFailures, IssuerUnavailable, StateUnavailable: it was not looked at.
        """
        version = self._current()
        if shown.user == CI_USER:
            # Nobody guesses a signature, and a job that fails must not shut out all others behind the same address.
            return await version.publishers.exchange(shown.password)
        async with self._limits.attempt(shown.user, client):
            return await self._directory.login(shown.user, shown.password)

    async def redeem(self, refresh_token: str, client: str) -> tuple[Principal, str]:
        """Who holds the refresh token, and the one to use next.

        Raises:
            BadCredentials: it is not good, or not any more.
            TooManyFailures, StateUnavailable: it was not looked at.
        """
        self._current()
        async with self._limits.attempt(_REFRESHING, client):
            return await self.refresh.redeem(refresh_token)

    async def rights(self, shown: Basic, client: str) -> Rights:
        """What somebody who logs in with this very request may do; see ``log_in``."""
        principal = await self.log_in(shown, client)
        return Rights(principal, self.config.policy)

    async def rights_of_token(self, raw: str) -> Rights:
        """What the bearer of a token may do now.

        Raises:
            InvalidToken: it is not to be believed, or whom it is for is no more.
            IssuerUnavailable, StateUnavailable: that cannot be told now.
        """
        version = self._current()
        grant = await version.verifier.verify(raw)
        principal = await self._directory.current(grant.principal)
        if principal is None:
            raise InvalidToken("subject")
        if not grant.issuer:
            return Rights(principal, version.config.policy, grant.access)
        domain = next(one.repositories for one in version.config.token_issuers if one.name == grant.issuer)
        return Rights(principal, version.config.policy, grant.access, domain)

    def issue(self, principal: Principal, access: Scope) -> IssuedToken:
        """A token of ours, for as long as tokens of such a principal are good.

        Raises:
            ValueError: it would be too long.
        """
        version = self._current()
        is_ci = principal.name.startswith(OIDC)
        ttl = version.publishers.ttl(principal) if is_ci else version.config.token_ttl
        return version.signer.issue(principal, access, ttl=ttl)

    def close(self) -> None:
        """Lets threads go."""
        self._directory.close()

    def _current(self) -> _Version:
        config = self._foundation.config()
        if config is not self._version.config and config is not self._refused:
            try:
                self._version = _Version.of(config, self._foundation, self._source)
            except ConfigurationError as exc:
                self._refused = config
                _log.error("what the configuration said before stays in use: %s", exc)
        return self._version
