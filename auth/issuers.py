"""The keys of those whose tokens we take: from a file, or from the issuer's own address.

Law (rule T15): where to ask is written in the operator's configuration, and a token can make us ask once per minute at
most, whatever it holds. Keys that were good stay in use while the issuer cannot be reached, for a day; a key that the
issuer has withdrawn is forgotten within ten minutes. Each worker has its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from moorage.auth.configuration import AuthConfig, IssuerConfig, TokenIssuerConfig
from moorage.auth.errors import ConfigurationError, InvalidToken, IssuerUnavailable
from moorage.auth.tokens import KeyFinder, TokenIssuer
from moorage.auth.trust import KeySet, TrustedKey
from moorage.auth.watched import WatchedFile

__all__ = ["FetchedKeys", "FileKeys", "KeySource", "keys_of_ci", "token_issuers"]

_log = logging.getLogger(__name__)

Clock = Callable[[], float]

_FRESH: Final = 600.0
"""Seconds for which fetched keys are not looked at again unless a token names an unknown one."""

_KEPT: Final = 24 * 3600.0
"""Seconds for which they stay in use while they cannot be fetched again."""

_COOL_DOWN: Final = 60.0
"""Seconds between two fetches that unknown keys cause, and between two attempts that failed."""

_FIRST_RETRY: Final = 5.0
"""Seconds between two attempts as long as there are no keys at all."""

_DISCOVERY: Final = "/.well-known/openid-configuration"


class KeySource(Protocol):
    """How documents come from other machines."""

    async def fetch(self, url: str, *, host: str, ca: str | None) -> bytes:
        """The document at a URL.

        Args:
            host: the one that the operator named; no other may be at a private address.
            ca: a PEM file of the authorities that vouch for the server, in place of the system's.

        Raises:
            IssuerUnavailable: it cannot be had, or must not be asked for.
        """
        ...


class FileKeys:
    """Keys in a file, read again when it changes.

    Args:
        parse: makes the keys of the file's content; raises ValueError.

    Raises:
        ConfigurationError: the file cannot be read or understood.
    """

    def __init__(self, path: str, parse: Callable[[bytes], KeySet]) -> None:
        def read(name: str, content: bytes, _status: os.stat_result) -> KeySet:
            try:
                return parse(content)
            except ValueError as exc:
                raise ConfigurationError(f"{name}: {_one_line(exc)}") from None

        self._file = WatchedFile(path, read)

    async def find(self, header: Mapping[str, Any], algorithm: str) -> TrustedKey:
        """See ``KeyFinder``."""
        return self._file.current().select(header, algorithm)


class FetchedKeys:
    """Keys that an issuer publishes.

    Args:
        url: of the issuer, whose discovery document says where the keys are; or of the key set itself.
        is_discovered: which of the two it is.
        clock: seconds, from any moment on.
    """

    def __init__(
        self,
        source: KeySource,
        url: str,
        *,
        is_discovered: bool,
        algorithms: Sequence[str],
        ca: str | None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._source, self._url, self._ca, self._clock = source, url, ca, clock
        self._host = urlsplit(url).hostname or ""
        self._is_discovered, self._algorithms = is_discovered, tuple(algorithms)
        self._keys: KeySet | None = None
        self._fetched = self._tried = self._asked = float("-inf")
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<FetchedKeys of {self._url}>"

    async def find(self, header: Mapping[str, Any], algorithm: str) -> TrustedKey:
        """See ``KeyFinder``."""
        known, keys = self._keys, await self._current()
        try:
            return keys.select(header, algorithm)
        except InvalidToken as exc:
            if exc.reason != "key-unknown" or keys is not known:
                raise
        return (await self._newer(keys)).select(header, algorithm)

    async def _newer(self, keys: KeySet) -> KeySet:
        """Newer keys than these, if it is time to ask, or if somebody else is asking just now."""
        async with self._turn:
            now = self._clock()
            if self._keys is not keys or now - self._asked < _COOL_DOWN:
                return self._keys or keys
            self._asked = now
            return await self._renewed(keys)

    async def _current(self) -> KeySet:
        """The keys, fetched if there are none or they are old.

        Raises:
            IssuerUnavailable: there are none, or they are too old to be believed.
        """
        keys, now = self._keys, self._clock()
        if keys is None or now - self._fetched >= _KEPT:
            return await self._first()
        if now - self._fetched >= _FRESH and now - self._tried >= _COOL_DOWN:
            async with self._turn:  # nobody else asks: that would have been tried just now
                return await self._renewed(keys)
        return keys

    async def _first(self) -> KeySet:
        async with self._turn:
            if self._keys is not None and self._clock() - self._fetched < _FRESH:
                return self._keys  # somebody else has fetched them meanwhile
            if self._clock() - self._tried < _FIRST_RETRY:
                raise IssuerUnavailable(f"{self._url}: its keys could not be had a moment ago")
            return await self._fetch()

    async def _renewed(self, keys: KeySet) -> KeySet:
        """Newer keys, or these where there are none to be had. Only who has the turn calls it."""
        try:
            return await self._fetch()
        except IssuerUnavailable as exc:
            _log.warning("the keys that are known stay in use: %s", exc)
            return keys

    async def _fetch(self) -> KeySet:
        before, self._tried = self._tried, self._clock()
        try:
            keys = await self._ask()
        except asyncio.CancelledError:
            self._tried = before
            raise
        self._keys, self._fetched = keys, self._clock()
        return keys

    async def _ask(self) -> KeySet:
        url = await self._discover() if self._is_discovered else self._url
        try:
            return KeySet.of_jwks(await self._document(url), algorithms=self._algorithms)
        except ValueError as exc:
            raise IssuerUnavailable(f"{url}: {_one_line(exc)}") from None

    async def _discover(self) -> str:
        """Where the issuer says its keys are (OpenID Connect Discovery 1.0, section 4.3: it must name itself)."""
        document = await self._document(self._url.rstrip("/") + _DISCOVERY)
        found = document if isinstance(document, dict) else {}
        url = found.get("jwks_uri")
        if found.get("issuer") != self._url or not isinstance(url, str) or not (url.isascii() and url.isprintable()):
            raise IssuerUnavailable(f"{self._url}: its discovery document is another issuer's, or names no keys")
        return url

    async def _document(self, url: str) -> object:
        content = await self._source.fetch(url, host=self._host, ca=self._ca)
        try:
            document: object = json.loads(content)
        except (ValueError, RecursionError):
            raise IssuerUnavailable(f"{url}: it answered with something else than JSON") from None
        return document


def keys_of_ci(issuer: IssuerConfig, source: KeySource, *, clock: Clock = time.monotonic) -> KeyFinder:
    """The keys of a CI system.

    Raises:
        ConfigurationError: its file of keys cannot be used.
    """
    if issuer.keys is not None:
        return _jwks_file(issuer.keys, issuer.algorithms)
    return FetchedKeys(source, issuer.url, is_discovered=True, algorithms=issuer.algorithms, ca=issuer.ca, clock=clock)


def token_issuers(config: AuthConfig, source: KeySource, *, clock: Clock = time.monotonic) -> tuple[TokenIssuer, ...]:
    """The token servers that the configuration trusts.

    Raises:
        ConfigurationError: a file of keys cannot be used.
    """
    return tuple(
        TokenIssuer(one.name, one.issuer, one.service, _keys_of(one, source, clock)) for one in config.token_issuers
    )


def _keys_of(issuer: TokenIssuerConfig, source: KeySource, clock: Clock) -> KeyFinder:
    algorithms = issuer.algorithms
    if issuer.certificates is not None:
        return FileKeys(issuer.certificates, lambda pem: KeySet.of_certificates(pem, algorithms=algorithms))
    if issuer.jwks_file is not None:
        return _jwks_file(issuer.jwks_file, algorithms)
    if issuer.jwks_url is not None:
        return FetchedKeys(
            source, issuer.jwks_url, is_discovered=False, algorithms=algorithms, ca=issuer.ca, clock=clock
        )
    raise ConfigurationError(f"the token issuer {issuer.name!r} has no keys")


def _jwks_file(path: str, algorithms: Sequence[str]) -> FileKeys:
    return FileKeys(path, lambda content: KeySet.of_jwks(json.loads(content), algorithms=algorithms))


def _one_line(exc: Exception) -> str:
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__
