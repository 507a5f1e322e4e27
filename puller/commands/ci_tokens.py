"""The token by which a CI job proves who it is: what its CI system gives to it, found where that system puts it.

Law: a token is taken only where it was made for a registry: asked for with the registry as its audience (GitHub), or
put there by who wrote the job (a variable, a projected file). What a CI system keeps for itself, such as the service
account that every pod of Kubernetes has, is never shown to a registry.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from moorage.puller.errors import BadAnswer, CredentialsUnusable
from moorage.puller.messages import ERROR_LIMIT, Request
from moorage.puller.origins import Origin, is_loopback, redact
from moorage.puller.transport import Transport

__all__ = ["PROJECTED", "TOKEN", "TOKEN_FILE", "end_of", "find_token"]

TOKEN: Final = "MOORAGE_OIDC_TOKEN"  # noqa: S105  # the name of a variable
"""The variable with the token itself: the name to give to an id_token of GitLab."""

TOKEN_FILE: Final = "MOORAGE_OIDC_TOKEN_FILE"  # noqa: S105
"""The variable that names a file with the token."""

PROJECTED: Final = "/var/run/secrets/moorage/token"
"""Where a projected service account token of Kubernetes is looked for without any variable."""

_GITHUB_URL, _GITHUB_BEARER = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
_LONGEST: Final = 64 * 1024

_NOWHERE = (
    "this job has no token for a registry: on GitHub give it 'permissions: id-token: write'; on GitLab an id_token"
    f" named {TOKEN}; on Kubernetes project one to {PROJECTED}; elsewhere put one into {TOKEN}, or its file's name into"
    f" {TOKEN_FILE}"
)


async def find_token(
    environment: Mapping[str, str], transport: Transport, *, registry: str, audience: str | None
) -> str:
    """The job's token for a registry.

    Args:
        audience: whom it must be for; None: whom its maker chose, and of GitHub the registry.

    Raises:
        CredentialsUnusable: there is none, or it is for somebody else.
        Unreachable, BadAnswer: GitHub did not give one.
    """
    if token := environment.get(TOKEN, "").strip():
        return _checked(token, TOKEN, audience)
    if path := environment.get(TOKEN_FILE):
        return _checked(_read(path), path, audience)
    if environment.get(_GITHUB_URL) and environment.get(_GITHUB_BEARER):
        return await _ask_github(environment, transport, audience or registry)
    if os.path.exists(PROJECTED):  # noqa: ASYNC240  # one look at a memory file system
        return _checked(_read(PROJECTED), PROJECTED, audience)
    raise CredentialsUnusable(_NOWHERE)


def end_of(token: str) -> datetime | None:
    """When a token says that it expires; None where it does not say."""
    expires = _claims_of(token).get("exp")
    try:
        return datetime.fromtimestamp(expires, UTC) if isinstance(expires, int) else None
    except (OverflowError, ValueError, OSError):
        return None


async def _ask_github(environment: Mapping[str, str], transport: Transport, audience: str) -> str:
    """Asks the job's own service for a token (GitHub documentation, "OpenID Connect reference")."""
    url = environment[_GITHUB_URL]
    origin = Origin.of(url)
    if origin.scheme != "https" and not is_loopback(origin.host):
        raise CredentialsUnusable(f"{_GITHUB_URL} is not https: {redact(url)}")
    url += ("&" if "?" in url else "?") + urlencode({"audience": audience})
    headers = {"Authorization": f"Bearer {environment[_GITHUB_BEARER]}"}
    async with transport.exchange(Request("GET", url, headers)) as answer:
        body = await answer.read_body(ERROR_LIMIT)
        if answer.status != 200:
            raise BadAnswer(f"{redact(url)}: GitHub gave no token for {audience!r}: it answered {answer.status}")
    try:
        token = json.loads(body)["value"]
    except (ValueError, TypeError, KeyError):
        token = None
    if not isinstance(token, str) or not token:
        raise BadAnswer(f"{redact(url)}: GitHub answered without a token")
    return token


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read(_LONGEST + 1).strip()


def _checked(token: str, place: str, audience: str | None) -> str:
    """The token, if it can be one and is for the audience that is wanted."""
    if not token or len(token) > _LONGEST or not token.isascii() or not token.isprintable() or " " in token:
        raise CredentialsUnusable(f"{place}: there is no token in it")
    told = _claims_of(token).get("aud")
    if audience is not None and audience not in (told if isinstance(told, list) else [told]):
        raise CredentialsUnusable(f"{place}: the token there is for {told!r}, not for {audience!r}")
    return token


def _claims_of(token: str) -> dict[str, Any]:
    """What a token says; empty where it cannot be read. Only the registry can tell whether it is so."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError, RecursionError):
        claims = None
    return claims if isinstance(claims, dict) else {}
