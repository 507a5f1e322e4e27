"""The token service that a challenge names, and how a token is had from it (docker token specification).

Law: by GET, with user and password or as nobody; by POST for an identity token; by POST with a password where a service
does not know GET. A wrong password is sent once. What comes back is a token that can stand in a header, or an error.
Loaded when a registry asks for a token: most requests in a life need none.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode

from moorage.auth.challenge import Challenge
from moorage.auth.scope import Scope
from moorage.puller.errors import BadAnswer, RateLimited
from moorage.puller.messages import ERROR_LIMIT, Request
from moorage.puller.origins import Origin, redact
from moorage.puller.realms import check_realm
from moorage.puller.transport import Transport
from moorage.registry.oci import Denied, OciError, Unauthorized, Unavailable
from moorage.registry.oci.values import dataclass

if TYPE_CHECKING:
    from moorage.puller.credentials import Credentials

__all__ = ["Grant", "TokenService", "invitation", "lacking", "parse_token"]

_SHORTEST_LIFE = 60.0
"""Seconds that a token lives at least, and where its service does not say (docker token specification)."""

_LONGEST_LIFE = 24 * 3600.0
_SAFETY_MARGIN = 10.0
_NOT_SPOKEN = (404, 405)
"""What a token service answers to the flow that it does not know."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A token. ``header``: the value of an Authorization header; ``expires``: on the monotonic clock."""

    header: str
    expires: float

    def __repr__(self) -> str:
        return "<Grant ***>"


@dataclass(frozen=True, slots=True)
class TokenService:
    """The service of a challenge, found to belong to the registry, and what is wanted of it."""

    registry: Origin
    realm: str
    name: str | None
    scope: Scope

    @classmethod
    def of(cls, challenge: Challenge, registry: Origin, scope: Scope, *, allowed: Collection[Origin]) -> Self:
        """Asks for what we need and, where we need something, for what the registry says we need.

        Raises:
            BadAnswer: the realm must not see credentials for the registry; see ``check_realm``.
        """
        told = challenge.parameters
        realm = check_realm(registry, told.get("realm", ""), allowed=allowed)
        try:
            # Of a ping the scope is left out: what ghcr.io names there is only an example.
            needed = scope | Scope.parse(told.get("scope", "")) if scope else scope
        except ValueError:
            needed = scope
        return cls(registry, realm, told.get("service"), needed)

    async def fetch(self, transport: Transport, credentials: Credentials | None) -> Grant:
        """A token for the scope, or for as much of it as the service gives.

        Raises:
            Unauthorized, Denied, RateLimited, Unavailable: it refused.
            BadAnswer: it answered with something else than a token.
        """
        status, body = 0, b""
        if credentials is not None and credentials.identity_token:
            form = self._form(grant_type="refresh_token", refresh_token=credentials.identity_token)
            status, body = await self._post(transport, form)
        has_password = credentials is not None and credentials.password
        if status == 0 or (status in _NOT_SPOKEN and has_password):
            status, body = await self._get(transport, credentials)
        if status in _NOT_SPOKEN and credentials is not None and credentials.password:
            form = self._form(grant_type="password", username=credentials.username, password=credentials.password)
            status, body = await self._post(transport, form)
        if status != 200:
            raise self._refusal(status, credentials)
        return parse_token(body, self.realm)

    async def _get(self, transport: Transport, credentials: Credentials | None) -> tuple[int, bytes]:
        if credentials is None:
            return await _ask(transport, Request("GET", self._query()))
        url = self._query(("account", credentials.username))
        return await _ask(transport, Request("GET", url, {"Authorization": credentials.basic}))

    async def _post(self, transport: Transport, form: bytes) -> tuple[int, bytes]:
        # Not repeated: a refresh token may be good for one use.
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return await _ask(transport, Request("POST", self.realm, headers, form, idempotent=False))

    def _query(self, *more: tuple[str, str]) -> str:
        """The URL of a GET: one ``scope`` for each resource."""
        fields = [("service", self.name)] if self.name is not None else []
        fields += [*(("scope", one) for one in self.scope), *more]
        base, mark, query = self.realm.partition("#")[0].partition("?")
        return f"{base}?{query}{'&' if mark and query and fields else ''}{urlencode(fields)}"

    def _form(self, **more: str) -> bytes:
        """The body of a POST: one ``scope`` for all."""
        fields = {"client_id": "moorage", "service": self.name or "", "scope": str(self.scope), **more}
        return urlencode({name: value for name, value in fields.items() if value}).encode()

    def _refusal(self, status: int, credentials: Credentials | None) -> OciError:
        message = f"{redact(self.realm)}: the token service answered {status}"
        if status == 429:
            return RateLimited(message)
        if status >= 500:
            return Unavailable(message)
        if status == 401 or (status == 400 and credentials is not None):
            who = f"it refused {credentials.who}" if credentials else lacking(self.registry, credentials)
            return Unauthorized(f"{message}: {who}")
        if status == 403:
            who = f"to {credentials.who}" if credentials else f"without a login ({invitation(self.registry)})"
            return Denied(f"{message}: not permitted {who}: {self.scope}")
        return BadAnswer(message)


def invitation(registry: Origin) -> str:
    """What to type to log in."""
    return f"moorage login {str(registry).partition('://')[2]}"


def lacking(registry: Origin, credentials: Credentials | None) -> str:
    """What to say where a login is wanted and we have none that fits."""
    if credentials is None:
        return f"a login is needed, and nobody is logged in ({invitation(registry)})"
    return f"it asks for a password, and there is only {credentials.who}"


def parse_token(body: bytes, realm: str) -> Grant:
    """The token of a service's answer.

    Raises:
        BadAnswer: there is none in it.
    """
    try:
        document = json.loads(body)
        token = document.get("token") or document.get("access_token")
        life = _life_of(document)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        token, life = None, 0.0
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token or " " in token:
        raise BadAnswer(f"{redact(realm)}: the token service answered without a token")
    return Grant(f"Bearer {token}", time.monotonic() + max(life - _SAFETY_MARGIN, _SAFETY_MARGIN))


def _life_of(document: dict[str, object]) -> float:
    """Seconds that the token of an answer lives from now on."""
    told = document.get("expires_in")
    is_number = isinstance(told, int | float) and math.isfinite(told)
    life = min(max(float(told), _SHORTEST_LIFE), _LONGEST_LIFE) if is_number else _SHORTEST_LIFE  # type: ignore[arg-type]
    issued = document.get("issued_at")
    if not isinstance(issued, str):
        return life
    try:
        moment = datetime.fromisoformat(issued)
    except ValueError:
        return life
    age = time.time() - moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    return life - age if 0 < age < life else life  # anything else is a wrong clock, theirs or ours


async def _ask(transport: Transport, request: Request) -> tuple[int, bytes]:
    async with transport.exchange(request) as answer:
        return answer.status, await answer.read_body(ERROR_LIMIT)
