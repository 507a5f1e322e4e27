"""Answers a registry's challenges: Basic, and the Bearer tokens of the docker token protocol.

Law: credentials belong to one registry. They are shown to it, and to the token service it names, if that service is
reached over https or is the registry's own host (rules P1, N2); they never print.
"""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from moorage.puller.errors import BadAnswer
from moorage.puller.origins import Origin, check_hop, redact
from moorage.puller.transport import ERROR_LIMIT, Answer, Request, Transport
from moorage.registry.oci import Denied, Unauthorized, Unavailable

__all__ = ["Credentials", "Login", "read_docker_config"]

_CHALLENGE = re.compile(r'([A-Za-z][A-Za-z0-9-]*)\s+((?:[A-Za-z_]+\s*=\s*(?:"[^"]*"|[^\s,"]*)\s*(?:,\s*|$))*)')
_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]*))')
_DEFAULT_LIFE = 60.0
_SAFETY_MARGIN = 10.0
_CONFIG_LIMIT = 1024 * 1024
_DOCKER_HUB = "registry-1.docker.io"
_DOCKER_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password or token."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"<Credentials of {self.username!r}: ***>"

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class _Grant:
    header: str
    expires: float


class Login:
    """What to send as ``Authorization`` to one registry, scope by scope.

    A scope is written as in the token protocol, for example ``repository:a/b:pull,push``; a space joins several.
    """

    def __init__(self, transport: Transport, origin: Origin, credentials: Credentials | None) -> None:
        self._transport = transport
        self._origin = origin
        self._credentials = credentials
        self._grants: dict[str, _Grant] = {}
        self._is_basic = False

    def __repr__(self) -> str:
        return f"<Login to {self._origin} as {self._credentials!r}>"

    def header(self, scope: str) -> str | None:
        """The header value known to serve ``scope``, or None."""
        if self._is_basic and self._credentials:
            return self._credentials.basic
        grant = self._grants.get(scope)
        return grant.header if grant and grant.expires > time.monotonic() else None

    async def answer_challenge(self, scope: str, answer: Answer) -> bool:
        """Logs in as a 401 asks. True: ``header`` now gives something that was not sent yet.

        Raises:
            Unauthorized, Denied: the token service refused.
            BadAnswer: the challenge points to a place that must not see credentials.
        """
        challenges = dict(_parse_challenges(answer.header_lines("WWW-Authenticate")))
        if "bearer" in challenges:
            self._grants[scope] = await self._fetch_token(scope, challenges["bearer"])
            return True
        if "basic" in challenges and self._credentials and not self._is_basic:
            self._is_basic = True
            return True
        return False

    async def _fetch_token(self, scope: str, challenge: Mapping[str, str]) -> _Grant:
        realm = self._check_realm(challenge.get("realm", ""))
        query = [("service", challenge["service"])] if "service" in challenge else []
        query += [("scope", one) for one in (challenge.get("scope") or scope).split()]
        headers = {"Authorization": self._credentials.basic} if self._credentials else {}
        joint = "&" if "?" in realm else "?"
        async with self._transport.exchange(Request("GET", f"{realm}{joint}{urlencode(query)}", headers)) as answer:
            body = await answer.read_body(ERROR_LIMIT)
            if answer.status != 200:
                raise _refusal(answer, realm)
        return _parse_token(body, realm)

    def _check_realm(self, realm: str) -> str:
        target = Origin.of(realm)
        if target.scheme != "https" and (target.host, target.scheme) != (self._origin.host, self._origin.scheme):
            raise BadAnswer(f"{self._origin}: its token service {redact(realm)} is neither https nor on the same host")
        check_hop(self._origin, target)
        return realm


def read_docker_config(registry: str) -> Credentials | None:
    """The credentials for ``registry`` in docker's ``config.json`` (``$DOCKER_CONFIG``, else ``~/.docker``).

    Raises:
        Unauthorized: the file exists and cannot be read as what it should be.
    """
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    path = os.path.join(folder, "config.json")
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read(_CONFIG_LIMIT))
        return _find_credentials(document, registry)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as exc:
        raise Unauthorized(f"{path}: cannot be read as docker's credentials ({type(exc).__name__})") from exc


def _find_credentials(document: Mapping[str, Mapping[str, Mapping[str, str]]], registry: str) -> Credentials | None:
    keys = _DOCKER_HUB_KEYS if registry == _DOCKER_HUB else (registry, f"https://{registry}", f"http://{registry}")
    for key in keys:
        encoded = document.get("auths", {}).get(key, {}).get("auth")
        if encoded:
            username, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
            return Credentials(username, password.rstrip("\0"))
    return None


def _parse_challenges(lines: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    for line in lines:
        for scheme, parameters in _CHALLENGE.findall(line):
            found = {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(parameters)}
            yield scheme.lower(), found


def _parse_token(body: bytes, realm: str) -> _Grant:
    try:
        document = json.loads(body)
        token = document.get("token") or document.get("access_token")
        life = float(document.get("expires_in") or _DEFAULT_LIFE)
    except (ValueError, TypeError, AttributeError, RecursionError):
        token, life = None, 0.0
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise BadAnswer(f"{redact(realm)}: the token service answered without a token")
    return _Grant(f"Bearer {token}", time.monotonic() + max(life - _SAFETY_MARGIN, _SAFETY_MARGIN))


def _refusal(answer: Answer, realm: str) -> Unauthorized | Denied | Unavailable | BadAnswer:
    message = f"{redact(realm)}: the token service answered {answer.status}"
    if answer.status == 401:
        return Unauthorized(message)
    if answer.status == 403:
        return Denied(message)
    return Unavailable(message) if answer.status >= 500 or answer.status == 429 else BadAnswer(message)
