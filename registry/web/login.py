"""The token server: ``/token`` gives tokens for ``/v2``, and ``/.well-known/jwks.json`` the keys to check them with.

Law: granted is requested ∩ policy; less than was asked for is no error, only wrong credentials are (docker token
specification). Tokens are for this registry alone, whatever service a client names (rule T4). Credentials come in the
Authorization header or in a form, never in a URL (T8); nobody is redirected anywhere (T16).
What clients need: both names of the token, and that POST never answers bad credentials with 403, 422 or 500, at which
containerd gives up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from moorage.auth.errors import AuthError, BadCredentials, TooManyFailures
from moorage.auth.policy import permitted
from moorage.auth.principal import ANONYMOUS, Principal
from moorage.auth.scope import Resource, Scope
from moorage.registry.oci import InternalError, NotFound, OciError, Unauthorized, Unsupported
from moorage.registry.web.audit import AuditLog, Event
from moorage.registry.web.authority import Authority
from moorage.registry.web.exchange import Scope as Request
from moorage.registry.web.gate import REALM, as_refusal
from moorage.registry.web.respond import JSON, Call, ClientLeft, Header, json_body
from moorage.registry.web.shown import Basic, Bearer, authorization_in, read_authorization
from starlette.types import Receive, Send

__all__ = ["TokenServer"]

_log: Final = logging.getLogger(__name__)

_JWKS_PATH: Final = b"/.well-known/jwks.json"

_FORM_LIMIT: Final = 64 * 1024
"""Bytes of a form (rule A11)."""

_MOST_FIELDS: Final = 512
_MOST_SCOPES: Final = 256
"""More would not fit a token."""

_NO_STORE: Final[Header] = (b"cache-control", b"no-store")
_LOGIN: Final[Header] = (b"www-authenticate", f'Basic realm="{REALM}"'.encode())


class _BadRequest(OciError):
    """The request for a token is malformed."""

    code, status, summary = "REQUEST_INVALID", 400, "the request for a token is malformed"


class _FormTooLarge(_BadRequest):
    status, summary = 413, f"the form is larger than {_FORM_LIMIT} bytes"


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is asked for. ``offline``: a refresh token too."""

    service: str | None
    scope: Scope
    offline: bool = False


class TokenServer:
    """Answers requests for tokens and keys. ``audit``: is told every one of them."""

    def __init__(self, authority: Authority, *, audit: AuditLog | None = None) -> None:
        self._authority, self._audit = authority, audit

    async def __call__(self, request: Request, receive: Receive, send: Send) -> None:
        """Answers one request."""
        call = Call(request, receive, send)
        try:
            await self._answer(request, call)
        except ClientLeft:
            return
        except OciError as exc:
            if isinstance(exc, Unauthorized):
                call.error_headers = [_LOGIN]
            await call.refuse(exc)
        except Exception:
            if call.started:
                raise
            _log.exception("the request for a token failed")
            await call.refuse(InternalError())

    async def _answer(self, request: Request, call: Call) -> None:
        if self._authority.config.basic_only:
            raise NotFound("there are no tokens here: log in with Basic")
        method, is_key = request["method"], request["raw_path"] == _JWKS_PATH
        request["moorage.endpoint"] = "Token"
        if method not in (("GET", "HEAD") if is_key else ("GET", "POST")):
            raise Unsupported(detail={"allow": ["GET", "HEAD"] if is_key else ["GET", "POST"]})
        if is_key:
            await call.reply(200, [JSON, (b"cache-control", b"max-age=300")], json_body(self._authority.ring.jwks()))
            return
        document = await (self._get(request) if method == "GET" else self._post(request, call))
        await call.reply(200, [JSON, _NO_STORE], json_body(document))

    async def _get(self, request: Request) -> dict[str, Any]:
        fields = _fields(request["query_string"].decode("latin-1"))
        wish = _Wish(_only(fields, "service"), _scope(fields.get("scope", ())))
        self._check_service(wish)
        header = authorization_in(request["headers"])
        shown = read_authorization(header) if header is not None else None
        if isinstance(shown, Bearer):
            raise Unauthorized("a token is had for a password, not for a token")
        principal = await self._logged_in(shown, request) if shown is not None else ANONYMOUS
        return self._grant(principal, wish, request)

    async def _post(self, request: Request, call: Call) -> dict[str, Any]:
        fields = _fields(await _read_form(call))
        scopes = " ".join(fields.get("scope", ())).split()
        wish = _Wish(_only(fields, "service"), _scope(scopes), _only(fields, "access_type") == "offline")
        self._check_service(wish)
        following: str | None = None
        match _only(fields, "grant_type"):
            case "password":
                shown = Basic(_only(fields, "username") or "", _only(fields, "password") or "")
                principal = await self._logged_in(shown, request)
                if wish.offline:
                    following = await self._offline(principal, _only(fields, "client_id") or "")
            case "refresh_token":
                principal, following = await self._redeemed(_only(fields, "refresh_token") or "", request)
            case _:
                raise _BadRequest("grant_type is neither password nor refresh_token")
        granted = self._grant(principal, wish, request) | {"scope": str(self._allowed(principal, wish))}
        return granted | ({"refresh_token": following} if following else {})

    async def _offline(self, principal: Principal, client: str) -> str | None:
        try:
            return await self._authority.refresh.issue(principal, client)
        except AuthError as exc:
            raise as_refusal(exc) from exc

    async def _redeemed(self, refresh_token: str, request: Request) -> tuple[Principal, str]:
        try:
            principal, following = await self._authority.redeem(refresh_token, request["client"][0])
        except AuthError as exc:
            raise self._refused(exc, request, claimed="") from exc
        self._record("login", request, allowed=True, who=str(principal))
        return principal, following

    async def _logged_in(self, shown: Basic, request: Request) -> Principal:
        try:
            principal = await self._authority.log_in(shown, request["client"][0])
        except AuthError as exc:
            raise self._refused(exc, request, claimed=shown.user) from exc
        self._record("login", request, allowed=True, who=str(principal))
        return principal

    def _refused(self, exc: AuthError, request: Request, *, claimed: str) -> OciError:
        level = logging.INFO if isinstance(exc, BadCredentials | TooManyFailures) else logging.WARNING
        _log.log(level, "a login from %s failed: %s", request["client"][0], exc)
        self._record("login", request, allowed=False, claimed=claimed, why=type(exc).__name__)
        return as_refusal(exc)

    def _check_service(self, wish: _Wish) -> None:
        if wish.service not in (None, "", self._authority.service):
            raise _BadRequest(f"tokens are for the service {self._authority.service} only")

    def _grant(self, principal: Principal, wish: _Wish, request: Request) -> dict[str, Any]:
        access = self._allowed(principal, wish)
        try:
            issued = self._authority.issue(principal, access)
        except ValueError as exc:
            raise _BadRequest(str(exc)) from None
        self._record("token", request, allowed=True, who=str(principal), action=str(access))
        return {
            "token": issued.token,
            "access_token": issued.token,
            "expires_in": issued.expires_in,
            "issued_at": datetime.fromtimestamp(issued.issued_at, UTC).isoformat().replace("+00:00", "Z"),
        }

    def _allowed(self, principal: Principal, wish: _Wish) -> Scope:
        return permitted(self._authority.config.policy, principal, wish.scope)

    def _record(self, event: Any, request: Request, **more: Any) -> None:
        if self._audit is not None:
            about = {"client": request["client"][0], "id": request.get("moorage.request_id", b"").decode("ascii")}
            self._audit.record(Event(event=event, **more, **about))


async def _read_form(call: Call) -> str:
    if (call.content_length or 0) > _FORM_LIMIT:
        raise _FormTooLarge
    kind = (call.header(b"content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise _BadRequest("a request for a token is a form: application/x-www-form-urlencoded")
    body = b""
    async for chunk in call.body():
        body += chunk
        if len(body) > _FORM_LIMIT:
            raise _FormTooLarge
    return body.decode(errors="replace")


def _fields(encoded: str) -> Mapping[str, list[str]]:
    """The fields of a query or a form.

    Raises:
        _FormTooLarge: there are more than any client sends.
    """
    fields: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, errors="replace", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise _FormTooLarge(f"more than {_MOST_FIELDS} fields") from None
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


def _only(fields: Mapping[str, list[str]], name: str) -> str | None:
    """The value of a field that may stand once.

    Raises:
        _BadRequest: it stands twice, and one of the two would have to be guessed.
    """
    values = fields.get(name, [])
    if len(values) > 1:
        raise _BadRequest(f"{name} stands more than once")
    return values[0] if values else None


def _scope(wanted: Iterable[str]) -> Scope:
    """Everything of it that is a scope; what is not grants nothing.

    Raises:
        _BadRequest: it is more than anybody needs, who has not even shown who they are.
    """
    entries = [one for text in wanted for one in text.split()]
    if len(entries) > _MOST_SCOPES:
        raise _BadRequest(f"more than {_MOST_SCOPES} scopes")
    found: set[tuple[Resource, str]] = set()
    for one in entries:
        try:
            found |= Scope.parse(one).permissions
        except ValueError:
            continue
    return Scope(frozenset(found))
