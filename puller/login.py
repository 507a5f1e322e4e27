"""Answers a registry's challenges: Basic, and the Bearer tokens of the docker token protocol.

Law: credentials belong to one registry. They are shown to it, and to a token service that belongs to it (``realms``);
they never print. The keychain is asked when a registry asks us, not before.
Law of sharing: of several requests that are refused at once for the same scope, one logs in for all, and its failure is
theirs too: a wrong password is tried once.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode
from weakref import WeakValueDictionary

from moorage.auth.challenge import Challenge, parse_challenges
from moorage.auth.scope import Scope
from moorage.puller.errors import BadAnswer, RateLimited
from moorage.puller.messages import ERROR_LIMIT, Answer, Request
from moorage.puller.origins import Origin, redact
from moorage.puller.realms import check_realm
from moorage.puller.transport import Transport
from moorage.registry.oci import Denied, OciError, Unauthorized, Unavailable

if TYPE_CHECKING:
    from moorage.puller.credentials import Credentials, Keys

__all__ = ["Login"]

_SHORTEST_LIFE = 60.0
"""Seconds that a token lives at least, and where its service does not say (docker token specification)."""

_LONGEST_LIFE = 24 * 3600.0
_SAFETY_MARGIN = 10.0
_KEPT = 300.0
"""Seconds for which credentials are not looked up again: some helpers take a second, and what they give expires."""

_NOT_SPOKEN = (404, 405)
"""What a token service answers to the flow that it does not know."""


@dataclass(frozen=True, slots=True)
class _Grant:
    header: str
    expires: float

    def __repr__(self) -> str:
        return "<_Grant ***>"


@dataclass
class _Turn:
    """Those who need one scope take turns; ``failures`` counts, so that who waited meanwhile learns of one."""

    lock: asyncio.Lock
    failures: int = 0
    failure: OciError | None = None


@dataclass(frozen=True, slots=True)
class _Service:
    """The token service of a challenge, checked, and what is wanted of it."""

    realm: str
    name: str | None
    scope: Scope

    def query(self, *more: tuple[str, str]) -> str:
        """The URL of a GET: one ``scope`` for each resource."""
        fields = [("service", self.name)] if self.name is not None else []
        fields += [*(("scope", one) for one in self.scope), *more]
        base, mark, query = self.realm.partition("#")[0].partition("?")
        return f"{base}?{query}{'&' if mark and query and fields else ''}{urlencode(fields)}"

    def form(self, **more: str) -> bytes:
        """The body of a POST: one ``scope`` for all."""
        fields = {"client_id": "moorage", "service": self.name or "", "scope": str(self.scope), **more}
        return urlencode({name: value for name, value in fields.items() if value}).encode()


class Login:
    """What to send as ``Authorization`` to one registry, scope by scope.

    Args:
        keys: who we are there; None: whoever this machine's user is (``Keychain.default``).
        realms: token services elsewhere that the configuration allows.
    """

    def __init__(
        self, transport: Transport, origin: Origin, keys: Keys | None, *, realms: Collection[Origin] = ()
    ) -> None:
        self._transport, self._origin, self._keys, self._realms = transport, origin, keys, realms
        self._grants: dict[Scope, _Grant] = {}
        self._fixed: dict[str, str] = {}
        self._found: dict[str, tuple[float, Credentials | None]] = {}
        self._turns: WeakValueDictionary[Scope, _Turn] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<Login to {self._origin}>"

    def header(self, scope: Scope) -> str | None:
        """The header value known to serve ``scope``, or None."""
        fixed = self._fixed.get(_repository_of(scope))
        if fixed is not None:
            return fixed
        now = time.monotonic()
        exact = self._grants.get(scope)
        wider = (grant for granted, grant in self._grants.items() if granted.covers(scope))
        return next((grant.header for grant in (exact, *wider) if grant and grant.expires > now), None)

    async def answer_challenge(self, scope: Scope, answer: Answer, *, sent: str | None) -> bool:
        """Logs in as a 401 asks. True: ``header`` now gives something else than ``sent``, the header that was refused;
        False: it asks for nothing that we know.

        Raises:
            Unauthorized, Denied: the token service refused, or there are no credentials.
            BadAnswer: the challenge points to a place that must not see credentials.
        """
        turn = self._turns.setdefault(scope, _Turn(asyncio.Lock()))
        before = turn.failures
        async with turn.lock:
            if turn.failure is not None and turn.failures > before:
                raise turn.failure
            if self.header(scope) not in (None, sent):
                return True
            try:
                return await self._log_in(scope, parse_challenges(answer.header_lines("WWW-Authenticate")), sent)
            except OciError as exc:
                turn.failures, turn.failure = turn.failures + 1, exc
                raise

    def refusal(self, scope: Scope) -> Unauthorized:
        """What to say of a registry that refuses what a login has just given."""
        _, credentials = self._found.get(_repository_of(scope), (0.0, None))
        what = str(scope) or "to use it"
        if credentials is None:
            return Unauthorized(f"{self._origin}: not permitted without a login: {what} ({_invitation(self._origin)})")
        return Unauthorized(f"{self._origin}: not permitted to {credentials.who}: {what}")

    async def _log_in(self, scope: Scope, challenges: list[Challenge], sent: str | None) -> bool:
        repository = _repository_of(scope)
        offered = {challenge.scheme: challenge for challenge in reversed(challenges)}
        if not offered.keys() & {"bearer", "basic"}:
            return False
        credentials = await self._find_credentials(repository, afresh=sent is not None)
        if credentials is not None and credentials.registry_token:
            return self._fix(scope, f"Bearer {credentials.registry_token}", sent)
        if "bearer" in offered:
            service = self._service_of(offered["bearer"], scope)
            self._forget_expired()
            self._grants[scope] = await self._fetch_token(service, credentials)
            return True
        if credentials is None or not credentials.password:
            raise Unauthorized(f"{self._origin}: {_lacking(self._origin, credentials)}")
        return self._fix(scope, credentials.basic, sent)

    def _fix(self, scope: Scope, header: str, sent: str | None) -> bool:
        """Uses one header from now on for everything in the scope's repository.

        Raises:
            Unauthorized: it was refused already.
        """
        if header == sent:
            raise self.refusal(scope)
        self._fixed[_repository_of(scope)] = header
        return True

    async def _find_credentials(self, repository: str, *, afresh: bool) -> Credentials | None:
        since, found = self._found.get(repository, (-math.inf, None))
        if self._keys is None:
            from moorage.puller.credentials import Keychain  # noqa: PLC0415 (6 ms, and public images need none)

            self._keys = Keychain.default()
        if afresh or time.monotonic() - since > _KEPT:
            found = await self._keys.find(self._origin, repository)
            self._found[repository] = (time.monotonic(), found)
        return found

    def _service_of(self, challenge: Challenge, scope: Scope) -> _Service:
        """Asks for what we need and, where we need something, for what the registry says we need."""
        told = challenge.parameters
        realm = check_realm(self._origin, told.get("realm", ""), allowed=self._realms)
        try:
            # Of a ping the scope is left out: what ghcr.io names there is only an example.
            needed = scope | Scope.parse(told.get("scope", "")) if scope else scope
        except ValueError:
            needed = scope
        return _Service(realm, told.get("service"), needed)

    async def _fetch_token(self, service: _Service, credentials: Credentials | None) -> _Grant:
        """A token for an identity token by POST; otherwise by GET, and by POST where the service does not know GET."""
        status, body = 0, b""
        if credentials is not None and credentials.identity_token:
            form = service.form(grant_type="refresh_token", refresh_token=credentials.identity_token)
            status, body = await self._post(service, form)
        has_password = credentials is not None and credentials.password
        if status == 0 or (status in _NOT_SPOKEN and has_password):
            status, body = await self._get(service, credentials)
        if status in _NOT_SPOKEN and credentials is not None and credentials.password:
            form = service.form(grant_type="password", username=credentials.username, password=credentials.password)
            status, body = await self._post(service, form)
        if status != 200:
            raise _refusal(status, self._origin, service.realm, credentials)
        return _parse_token(body, service.realm)

    async def _get(self, service: _Service, credentials: Credentials | None) -> tuple[int, bytes]:
        if credentials is None:
            return await self._ask(Request("GET", service.query()))
        url = service.query(("account", credentials.username))
        return await self._ask(Request("GET", url, {"Authorization": credentials.basic}))

    async def _post(self, service: _Service, form: bytes) -> tuple[int, bytes]:
        # Not repeated: a refresh token may be good for one use.
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self._ask(Request("POST", service.realm, headers, form, idempotent=False))

    async def _ask(self, request: Request) -> tuple[int, bytes]:
        async with self._transport.exchange(request) as answer:
            return answer.status, await answer.read_body(ERROR_LIMIT)

    def _forget_expired(self) -> None:
        now = time.monotonic()
        self._grants = {scope: grant for scope, grant in self._grants.items() if grant.expires > now}


def _repository_of(scope: Scope) -> str:
    """The repository whose credentials serve ``scope``: of several the one that is written to."""
    names = [
        (action != "push", resource.name) for resource, action in scope.permissions if resource.type == "repository"
    ]
    return min(names)[1] if names else ""


def _parse_token(body: bytes, realm: str) -> _Grant:
    try:
        document = json.loads(body)
        token = document.get("token") or document.get("access_token")
        life = _life_of(document)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        token, life = None, 0.0
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token:
        raise BadAnswer(f"{redact(realm)}: the token service answered without a token")
    return _Grant(f"Bearer {token}", time.monotonic() + max(life - _SAFETY_MARGIN, _SAFETY_MARGIN))


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


def _refusal(status: int, registry: Origin, realm: str, credentials: Credentials | None) -> OciError:
    message = f"{redact(realm)}: the token service answered {status}"
    if status == 429:
        return RateLimited(message)
    if status >= 500:
        return Unavailable(message)
    if status == 401 or (status == 400 and credentials is not None):
        who = f"it refused {credentials.who}" if credentials else _lacking(registry, credentials)
        return Unauthorized(f"{message}: {who}")
    return Denied(message) if status == 403 else BadAnswer(message)


def _lacking(registry: Origin, credentials: Credentials | None) -> str:
    """What to say where a login is wanted and we have none that fits."""
    if credentials is None:
        return f"a login is needed, and nobody is logged in ({_invitation(registry)})"
    return f"it asks for a password, and there is only {credentials.who}"


def _invitation(registry: Origin) -> str:
    return f"moorage login {str(registry).partition('://')[2]}"
