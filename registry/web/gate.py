"""The gate before ``/v2``: who asks, whether they may, and what they are told if not.

Law: it is decided before the body is read, from the head alone (rules A14, T14), and before anything is looked up, so
the answer never tells what there is (rule A18). Whoever is not known, or has brought a token that is not for this, gets
401 with a challenge that says which token would be; a known one whom the policy refuses gets 403.
Law of one challenge: exactly one, on one line, every value in quotes, since clients read the first or the last only;
``/v2/`` asks for a login whatever is open to everybody, or half of the clients would never send theirs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, assert_never

from moorage.auth.challenge import Challenge
from moorage.auth.configuration import TokenIssuerConfig
from moorage.auth.errors import AuthError, BadCredentials, InvalidToken, TooManyFailures
from moorage.auth.policy import Action
from moorage.auth.principal import printable
from moorage.auth.scope import Scope
from moorage.registry.oci import OciError, Registry, RepositoryName, TooManyRequests, Unauthorized, Unavailable
from moorage.registry.oci.routes import (
    AppendUpload,
    CancelUpload,
    DeleteBlob,
    DeleteManifest,
    Endpoint,
    FinishUpload,
    GetBlob,
    GetManifest,
    GetUpload,
    HeadBlob,
    HeadManifest,
    ListReferrers,
    ListRepositories,
    ListTags,
    Ping,
    PutManifest,
    StartUpload,
)
from moorage.registry.web.audit import AuditLog, Event
from moorage.registry.web.authority import Authority
from moorage.registry.web.exchange import Scope as Request
from moorage.registry.web.proxied import base_url
from moorage.registry.web.respond import Header
from moorage.registry.web.shown import Basic, Bearer, authorization_in, read_authorization
from moorage.registry.wrap.authorise import Authorised, Decided
from moorage.registry.wrap.rights import PUSH, Rights, wire_scope

__all__ = ["REALM", "Gate", "as_refusal"]

_log: Final = logging.getLogger(__name__)

_PULL: Final = Action.PULL

_RECENTLY: Final = 1.0
"""Seconds; with ``state.RECENT`` they are the two within which a revocation is seen."""

_MOST_RECENT: Final = 1024

REALM: Final = "moorage"
"""What a Basic challenge calls us."""


class Gate:
    """Lets requests in.

    Args:
        external_url: where clients reach us; None: wherever they say they do.
        audit: is told every decision.
    """

    def __init__(
        self,
        registry: Registry,
        authority: Authority,
        *,
        external_url: str | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        self._registry, self._authority = registry, authority
        self._external_url, self._audit = external_url, audit
        self._recent = _Recent()

    def known(self, request: Request, endpoint: Endpoint) -> Registry | None:
        """What ``admit`` would return, where that needs no wait and no record: for whoever was met within the last
        second, and reads what they may. None: ask ``admit``.

        A plain function with little in it, as nearly every request ends here.

        Raises:
            Unauthorized: there are two Authorization headers.
        """
        match endpoint:
            case GetManifest() | HeadManifest() | GetBlob() | HeadBlob() if self._audit is None:
                caller = self._recent.find(authorization_in(request["headers"]), time.monotonic())
                if caller is not None and caller.rights.decide(_PULL, endpoint.repository).allowed:
                    return caller.registry
        return None

    async def admit(self, request: Request, endpoint: Endpoint) -> Registry:
        """The registry as the caller may use it.

        Raises:
            Unauthorized, Denied: the caller may not do this.
            TooManyRequests, Unavailable: that cannot be told now.
        """
        header = authorization_in(request["headers"])
        caller = self._recent.find(header, time.monotonic()) or await self._meet(header, request)
        if isinstance(endpoint, Ping):
            if header is None:
                raise Unauthorized
            return self._registry
        rights, registry = caller.rights, caller.registry
        actions, repository = _needed(endpoint)
        decision = rights.any_of(actions, repository)
        if self._audit is not None:
            record = self._recorder(rights, request)
            registry = Authorised(self._registry, rights, seal=self._authority.ring, record=record)
            if not decision.allowed:
                record(Decided(decision, actions[-1], repository))
        if not decision.allowed:
            raise rights.refusal(decision)
        return registry

    def challenge(self, request: Request, endpoint: Endpoint, error: Unauthorized) -> tuple[Unauthorized, Header]:
        """What a 401 says: the error, and the header that tells how to log in."""
        wanted = _wanted(endpoint)
        detail = [
            {"Type": resource.type, "Class": resource.kind, "Name": resource.name, "Action": action}
            for resource, action in sorted(wanted.permissions)
        ]
        config = self._authority.config
        if config.basic_only:
            challenge = Challenge("basic", {"realm": REALM})
        else:
            parameters = self._token_server(config.token_server, request)
            if wanted:
                parameters["scope"] = str(wanted)
            challenge = Challenge("bearer", parameters | _word(request, error))
        return Unauthorized(error.message, detail=detail or None), (b"www-authenticate", str(challenge).encode("ascii"))

    def _token_server(self, other: TokenIssuerConfig | None, request: Request) -> dict[str, str]:
        """Where tokens are had: here, or where the operator's own token server is."""
        if other is not None:
            return {"realm": other.realm or "", "service": other.service}
        url = self._external_url or base_url(request)
        return {"realm": f"{url}/token", "service": self._authority.service}

    async def _meet(self, header: bytes | None, request: Request) -> _Caller:
        """Finds out who somebody is, by what they show."""
        if header is None:
            rights = self._authority.rights_of_nobody()
        else:
            rights = await self._rights_of(read_authorization(header), request)
        caller = _Caller(rights, Authorised(self._registry, rights, seal=self._authority.ring))
        self._recent.keep(header, caller)
        return caller

    async def _rights_of(self, shown: Basic | Bearer, request: Request) -> Rights:
        try:
            match shown:
                case Bearer(token):
                    return await self._authority.rights_of_token(token)
                case Basic():
                    return await self._authority.rights(shown, request["client"][0])
                case _:
                    assert_never(shown)
        except AuthError as exc:
            self._note_failure(exc, shown, request)
            raise as_refusal(exc) from exc

    def _note_failure(self, exc: AuthError, shown: Basic | Bearer, request: Request) -> None:
        if not isinstance(exc, InvalidToken):  # tokens expire every few minutes
            level = logging.INFO if isinstance(exc, BadCredentials | TooManyFailures) else logging.WARNING
            _log.log(level, "a login from %s failed: %s", request["client"][0], exc)
        if self._audit is not None:
            claimed = shown.user if isinstance(shown, Basic) else ""
            why = str(exc) if isinstance(exc, InvalidToken) else type(exc).__name__
            self._audit.record(Event(event="login", allowed=False, claimed=claimed, why=why, **_about(request)))

    def _recorder(self, rights: Rights, request: Request) -> Callable[[Decided], None]:
        audit, who, about = self._audit, rights.principal.name, _about(request)

        def record(one: Decided) -> None:
            if audit is not None:
                audit.record(
                    Event(
                        event="access",
                        allowed=one.decision.allowed,
                        who=printable(who),
                        action=str(one.action),
                        repository=str(one.repository or ""),
                        tag=str(one.tag or ""),
                        digest=str(one.digest or ""),
                        rule=one.decision.rule,
                        why="" if one.decision.allowed else one.decision.why,
                        **about,
                    )
                )

        return record


@dataclass(frozen=True, slots=True)
class _Caller:
    """What somebody may do, and the registry as they may use it."""

    rights: Rights
    registry: Registry


class _Recent:
    """Who was let in lately, by their Authorization header (None: nobody), so that a client in full flow costs little.

    All are forgotten together, every second: what is taken away from somebody is gone then. Bounded. A header is found
    by a hash that has a secret of the process, so time tells nothing of one that is near.
    """

    def __init__(self) -> None:
        self._kept: dict[bytes | None, _Caller] = {}
        self._until = 0.0

    def find(self, header: bytes | None, now: float) -> _Caller | None:
        """Whoever showed this since all were forgotten."""
        if now >= self._until:
            self._kept.clear()
            self._until = now + _RECENTLY
        return self._kept.get(header)

    def keep(self, header: bytes | None, caller: _Caller) -> None:
        """Remembers a caller, if there is room."""
        if len(self._kept) < _MOST_RECENT:
            self._kept[header] = caller


def as_refusal(exc: AuthError) -> OciError:
    """What a client is told: never which part of a login was wrong, or whether there is such a user."""
    match exc:
        case BadCredentials():
            return Unauthorized("the credentials are wrong, or hold no more")
        case InvalidToken():
            return Unauthorized("the token is not valid, or not any more")
        case TooManyFailures(retry_after=seconds):
            return TooManyRequests("too many failed logins, wait", detail={"retryAfter": seconds})
    return Unavailable("who you are cannot be checked just now, try again")


def _about(request: Request) -> dict[str, Any]:
    return {"client": request["client"][0], "id": request.get("moorage.request_id", b"").decode("ascii")}


def _word(request: Request, error: Unauthorized) -> dict[str, str]:
    """RFC 6750, section 3.1; containerd fetches another token only when it reads ``invalid_token``."""
    if isinstance(error.__cause__, InvalidToken):
        return {"error": "invalid_token"}
    is_bearer = any(name == b"authorization" and value[:7].lower() == b"bearer " for name, value in request["headers"])
    return {"error": "insufficient_scope"} if is_bearer else {}


def _needed(endpoint: Endpoint) -> tuple[tuple[Action, ...], RepositoryName | None]:
    """What one must be allowed, of which one suffices; and where."""
    match endpoint:
        case GetManifest() | HeadManifest() | GetBlob() | HeadBlob() | ListTags() | ListReferrers():
            return (Action.PULL,), endpoint.repository
        case PutManifest() | StartUpload() | GetUpload() | AppendUpload() | FinishUpload() | CancelUpload():
            return PUSH, endpoint.repository
        case DeleteManifest() | DeleteBlob():
            return (Action.DELETE,), endpoint.repository
        case ListRepositories():
            return (Action.CATALOG,), None
        case Ping():
            return (), None
        case _:
            assert_never(endpoint)


def _wanted(endpoint: Endpoint) -> Scope:
    """What the token of a challenge is to be for."""
    actions, repository = _needed(endpoint)
    if not actions:
        return Scope()
    if isinstance(endpoint, HeadBlob):
        # Nearly always the first request of a push; oras keeps the first token that it gets for all that follow.
        actions = PUSH
    wanted = wire_scope(actions[0], str(repository or ""))
    if isinstance(endpoint, StartUpload) and endpoint.source is not None:
        wanted |= wire_scope(Action.PULL, str(endpoint.source))
    return wanted
