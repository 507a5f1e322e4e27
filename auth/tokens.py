"""Tokens: JSON Web Tokens that say who somebody is and what they may do (docker token specification).

Law (rules T1, T3, T10, T11): a token is at most 8 KiB, three parts, signed, never encrypted or compressed. It is read
in one order: its header names a key that is trusted already; the key's own algorithm must be the header's; the
signature must hold; and only then issuer, audience, times and the rest. What a header carries besides is not looked at,
unless it is critical or changes how the token is to be read: then the token is refused.

What was verified is remembered by its hash until it expires, so that a token costs one signature, not one per request.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

import jwt
import msgspec
from moorage.auth.certificates import Certificates
from moorage.auth.claims import LEEWAY, check_audience, check_times, read_access, read_object, text_of, written_access
from moorage.auth.errors import ConfigurationError, InvalidToken
from moorage.auth.keys import KeyRing, Ring, SigningKey
from moorage.auth.principal import ISSUER, Principal
from moorage.auth.scope import Scope
from moorage.auth.trust import ALGORITHMS, TrustedKey
from moorage.auth.watched import WatchedFile

__all__ = [
    "LONGEST_TOKEN",
    "Grant",
    "IssuedToken",
    "KeyFinder",
    "SignedToken",
    "TokenIssuer",
    "TokenSigner",
    "TokenVerifier",
]

LONGEST_TOKEN: Final = 8 * 1024
"""Characters; a longer one is refused unread (rule T10)."""

_JWS: Final = jwt.PyJWS(algorithms=list(ALGORITHMS))
_ALTERING: Final = ("crit", "b64", "zip", "enc")
"""Headers that say that a token is not read as it stands; none of these ways is spoken here (rule T11)."""

_TYPES: Final = ("jwt",)
_OURS: Final = ("exp", "nbf", "iat")
_MOST_REMEMBERED: Final = 4096
_REMEMBERED_FOREIGN: Final = 60.0
"""Seconds for which another issuer's key, once good, is not asked for again."""


class KeyFinder(Protocol):
    """An issuer's keys."""

    async def find(self, header: Mapping[str, Any], algorithm: str) -> TrustedKey:
        """The key that a token's header names.

        Raises:
            InvalidToken: the issuer has no such key for this algorithm.
            IssuerUnavailable: its keys could not be had yet.
        """
        ...


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A token that nobody has checked yet; ``claims`` are what it says, not what is so."""

    raw: str
    header: Mapping[str, Any]
    algorithm: str
    claims: Mapping[str, Any]

    @classmethod
    def parse(cls, raw: str, *, types: Sequence[str] = _TYPES) -> Self:
        """Reads a token without believing it.

        Args:
            types: what ``typ`` may be, where it is present; lower case.

        Raises:
            InvalidToken: it is no signed token in compact form, or wants to be read in a way that is not spoken here.
        """
        if len(raw) > LONGEST_TOKEN:
            raise InvalidToken("too-long")
        if raw.count(".") != 2 or not raw.isascii():
            raise InvalidToken("malformed")
        head, body, _ = raw.split(".", 2)
        header, claims = read_object(_decoded(head), part="header"), read_object(_decoded(body), part="claims")
        algorithm, kind = header.get("alg"), header.get("typ", types[0])
        if any(name in header for name in _ALTERING):
            raise InvalidToken("header")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise InvalidToken("algorithm")
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in types:
            raise InvalidToken("typ")
        return cls(raw, header, algorithm, claims)

    def check_signature(self, key: TrustedKey) -> None:
        """That the holder of ``key`` signed this.

        Raises:
            InvalidToken: somebody else did, or with another algorithm than the key's.
        """
        if self.algorithm not in key.algorithms:
            raise InvalidToken("algorithm")
        try:
            _JWS.decode_complete(self.raw, key.public, algorithms=[self.algorithm])
        except jwt.InvalidTokenError:
            raise InvalidToken("signature") from None


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token for a client. ``expires_in``: seconds; ``issued_at``: seconds since 1970."""

    token: str
    expires_in: int
    issued_at: int

    def __repr__(self) -> str:
        return f"<IssuedToken *** for {self.expires_in} s>"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a good token says. ``issuer``: the name of the issuer that the configuration trusts, empty for our own;
    ``expires``: seconds since 1970."""

    principal: Principal
    access: Scope
    expires: float
    token_id: str
    issuer: str = ""


class TokenSigner:
    """Makes tokens.

    Args:
        issuer: the ``iss`` of every token.
        service: the ``aud``: for whom they are.
        certificates: a bundle of certificates for our keys. With it, the first key that has one signs, and the
            certificate goes along: so registries take the token that know no thumbprints.

    Raises:
        ConfigurationError: the bundle cannot be used, or is for none of the keys, or for one that is not P-256.
    """

    def __init__(
        self,
        ring: KeyRing,
        *,
        issuer: str,
        service: str,
        certificates: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ring, self._issuer, self._service, self._clock = ring, issuer, service, clock
        self._certificates = WatchedFile(certificates, Certificates.parse) if certificates else None
        self._chosen: tuple[Ring, Certificates | None] | None = None
        self._key, self._header = self._choose()

    def __repr__(self) -> str:
        return f"<TokenSigner of {self._issuer!r} for {self._service!r}>"

    def issue(self, principal: Principal, access: Scope, *, ttl: int) -> IssuedToken:
        """A token that says that ``principal`` may do what is in ``access``, for ``ttl`` seconds.

        Raises:
            ValueError: it would be longer than a token may be: too much was asked for at once.
        """
        key, header = self._choose()
        now = int(self._clock())
        claims: dict[str, Any] = {"iss": self._issuer, "sub": principal.name, "aud": self._service}
        claims |= {"iat": now, "nbf": now, "exp": now + ttl, "jti": secrets.token_urlsafe(16)}
        if principal.groups:
            claims["groups"] = sorted(principal.groups)
        claims["access"] = written_access(access)
        token = _JWS.encode(msgspec.json.encode(claims), key.private, algorithm=key.algorithm, headers=header)
        if len(token) > LONGEST_TOKEN:
            raise ValueError("too many scopes for one token")
        return IssuedToken(token, ttl, now)

    def _choose(self) -> tuple[SigningKey, dict[str, Any]]:
        """The key that signs now, and the header that says so."""
        ring = self._ring.current()
        certificates = self._certificates.current() if self._certificates else None
        if self._chosen != (ring, certificates):
            self._key, self._header = _key_of(ring, certificates)
            self._chosen = (ring, certificates)
        return self._key, self._header


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Another token server that is trusted. ``issuer``, ``audience``: the exact ``iss`` and ``aud`` of its tokens."""

    name: str
    issuer: str
    audience: str
    keys: KeyFinder


class TokenVerifier:
    """Tells good tokens from others.

    Args:
        issuer, service: what our own tokens say, see ``TokenSigner``.
        issuers: others whose tokens are taken.

    Raises:
        ConfigurationError: two issuers have one name in their tokens.
    """

    def __init__(
        self,
        ring: KeyRing,
        *,
        issuer: str,
        service: str,
        issuers: Sequence[TokenIssuer] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ring, self._issuer, self._service, self._clock = ring, issuer, service, clock
        self._issuers = {one.issuer: one for one in issuers}
        if len(self._issuers) != len(issuers) or issuer in self._issuers:
            told = ", ".join(repr(one.issuer) for one in issuers)
            raise ConfigurationError(
                f"token_issuers: each needs an issuer of its own, and not ours, {issuer!r}: they say {told}"
            )
        self._remembered: dict[bytes, tuple[float, Grant]] = {}
        self._remembered_with = ring.current()

    def __repr__(self) -> str:
        return f"<TokenVerifier of {self._issuer!r} for {self._service!r}>"

    async def verify(self, raw: str) -> Grant:
        """What a token grants.

        Raises:
            ExpiredToken: it was good once.
            InvalidToken: it is not to be believed; the reason is for the log, not for who sent it.
            IssuerUnavailable: its issuer's keys could not be had yet.
        """
        if len(raw) > LONGEST_TOKEN:
            raise InvalidToken("too-long")
        ring = self._ring.current()
        if ring is not self._remembered_with:
            self._remembered.clear()
            self._remembered_with = ring
        digest = hashlib.sha256(raw.encode(errors="surrogatepass")).digest()
        good_until, grant = self._remembered.get(digest, (0.0, None))
        now = self._clock()
        if grant is None or now >= good_until:
            grant = await self._examine(raw, now)
            self._remember(digest, grant, now)
        return grant

    async def _examine(self, raw: str, now: float) -> Grant:
        token = SignedToken.parse(raw)
        issuer = token.claims.get("iss")
        if issuer == self._issuer:
            return self._examine_own(token, now)
        if not isinstance(issuer, str) or issuer not in self._issuers:
            raise InvalidToken("iss")
        return await _examine_foreign(token, self._issuers[issuer], now)

    def _examine_own(self, token: SignedToken, now: float) -> Grant:
        """Rule T3: of our own tokens every claim must be there."""
        token.check_signature(self._ring.current().trusted.select(token.header, token.algorithm))
        claims = token.claims
        check_audience(claims, self._service)
        expires = check_times(claims, now=now, needed=_OURS)
        groups = claims.get("groups", [])
        if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
            raise InvalidToken("groups")
        principal = Principal(text_of(claims, "sub"), frozenset(groups))
        return Grant(principal, read_access(claims), expires, _token_id(claims, is_needed=True))

    def _remember(self, digest: bytes, grant: Grant, now: float) -> None:
        self._remembered.pop(digest, None)
        if len(self._remembered) >= _MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        end = grant.expires + LEEWAY
        self._remembered[digest] = (min(end, now + _REMEMBERED_FOREIGN) if grant.issuer else end, grant)


async def _examine_foreign(token: SignedToken, issuer: TokenIssuer, now: float) -> Grant:
    key = await issuer.keys.find(token.header, token.algorithm)
    if now >= key.good_until:
        raise InvalidToken("key-expired")
    token.check_signature(key)
    claims = token.claims
    check_audience(claims, issuer.audience)
    expires = check_times(claims, now=now)
    principal = Principal(f"{ISSUER}{issuer.name}:{text_of(claims, 'sub')}")
    return Grant(principal, read_access(claims), expires, _token_id(claims), issuer.name)


def _token_id(claims: Mapping[str, Any], *, is_needed: bool = False) -> str:
    return text_of(claims, "jti") if is_needed or "jti" in claims else ""


def _key_of(ring: Ring, certificates: Certificates | None) -> tuple[SigningKey, dict[str, Any]]:
    if certificates is None:
        return ring.signing, {"kid": ring.signing.kid}
    for key in ring.keys:
        if chain := certificates.chain_of(key.kid):
            # Debian's docker-registry panics on a certificate for EdDSA.
            if key.algorithm != "ES256":
                raise ConfigurationError("certificates for tokens need a signing key for ES256 (P-256)")
            return key, {"kid": key.kid, "x5c": chain}
    raise ConfigurationError("no certificate of the bundle is for one of the signing keys")


def _decoded(part: str) -> bytes:
    """One part of a token; strict base64 without padding is checked again with the signature."""
    try:
        return jwt.utils.base64url_decode(part)
    except ValueError:
        raise InvalidToken("malformed") from None
