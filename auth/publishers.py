"""Trusted publishers: a CI job proves itself with the token that its CI system gives it, instead of a stored secret.

Law: the token is only proof of who asks. It is believed when an issuer that the configuration names has signed it for
us, now; what it is good for is decided by the publishers whose every claim it holds, and where there is none, it is
good for nothing. Nothing about it is stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from moorage.auth.claims import check_audience, check_times, text_of
from moorage.auth.configuration import AuthConfig, ClaimRule, PublisherConfig
from moorage.auth.errors import BadCredentials, ConfigurationError, InvalidToken
from moorage.auth.issuers import KeySource, keys_of_ci
from moorage.auth.principal import OIDC, PUBLISHER, Principal, printable
from moorage.auth.tokens import KeyFinder, SignedToken

__all__ = ["CiIssuer", "Publishers"]

_TYPES: Final = ("jwt", "at+jwt")
"""OpenID Connect's and RFC 9068's; Kubernetes sends none."""

_SHORTEST: Final = 60
"""Seconds; for who no longer belongs to any publisher."""


@dataclass(frozen=True, slots=True)
class CiIssuer:
    """A CI system. ``url``: the ``iss`` of its tokens, exactly; ``audience``: what jobs must have asked for."""

    name: str
    url: str
    audience: str
    keys: KeyFinder


class Publishers:
    """Everything that CI jobs may log in as.

    Args:
        clock: seconds since 1970.

    Raises:
        ConfigurationError: two issuers have one URL.
    """

    def __init__(
        self,
        issuers: Sequence[CiIssuer],
        publishers: Sequence[PublisherConfig],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuers = {issuer.url: issuer for issuer in issuers}
        if len(self._issuers) != len(issuers):
            raise ConfigurationError("issuers: two of them have the same url, so their tokens cannot be told apart")
        self._publishers = tuple(publishers)
        self._clock = clock

    @classmethod
    def of(cls, config: AuthConfig, source: KeySource) -> Self:
        """What the configuration says.

        Raises:
            ConfigurationError: a file of keys cannot be used.
        """
        issuers = [CiIssuer(one.name, one.url, one.audience, keys_of_ci(one, source)) for one in config.issuers]
        return cls(issuers, config.publishers)

    async def exchange(self, raw: str) -> Principal:
        """Who the job with this token is; its groups are the publishers that it matches.

        Raises:
            BadCredentials: the token is not good, or no publisher wants it; the message is for the log.
            IssuerUnavailable: its issuer's keys could not be had yet.
        """
        try:
            issuer, claims = await self._believed(raw)
            subject = text_of(claims, "sub")
        except InvalidToken as exc:
            raise BadCredentials(f"a CI token: {exc.reason}") from exc
        matching = [one for one in self._publishers if one.issuer == issuer.name and _matches(one, claims)]
        if not matching or not subject:
            raise BadCredentials(f"a CI token: no trusted publisher for {printable(subject)!r} of {issuer.name}")
        groups = frozenset(f"{PUBLISHER}{one.name}" for one in matching)
        return Principal(f"{OIDC}{issuer.name}:{subject}", groups)

    def ttl(self, principal: Principal) -> int:
        """Seconds for which a token of the principal is good: the shortest time of the publishers it belongs to."""
        times = [one.ttl for one in self._publishers if f"{PUBLISHER}{one.name}" in principal.groups]
        return min(times, default=_SHORTEST)

    async def _believed(self, raw: str) -> tuple[CiIssuer, Mapping[str, Any]]:
        token = SignedToken.parse(raw, types=_TYPES)
        told = token.claims.get("iss")
        issuer = self._issuers.get(told) if isinstance(told, str) else None
        if issuer is None:
            raise InvalidToken("iss")
        token.check_signature(await issuer.keys.find(token.header, token.algorithm))
        check_audience(token.claims, issuer.audience)
        check_times(token.claims, now=self._clock())
        return issuer, token.claims


def _matches(publisher: PublisherConfig, claims: Mapping[str, Any]) -> bool:
    """Whether every claim is as the publisher wants it; one that wants nothing wants nobody."""
    return bool(publisher.claims) and all(_holds(rule, claims) for rule in publisher.claims)


def _holds(rule: ClaimRule, claims: Mapping[str, Any]) -> bool:
    """Whether the claim is there and is one of those allowed; of a list, whether one of its values is."""
    value: object = claims
    for name in rule.path:
        value = value.get(name) if isinstance(value, dict) else None
    texts = [_text(one) for one in value] if isinstance(value, list) else [_text(value)]
    return any(pattern.matches(text) for text in texts if text is not None for pattern in rule.allowed)


def _text(value: object) -> str | None:
    """A claim as JSON writes it, without the quotes of a text; None: of a kind that is never compared."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | str():
            return str(value)
    return None
