"""The server of the wire tests with everything on: TLS by a private authority, accounts, tokens.

Law: what a client sees is the same as without, once it has shown a token: every test of the API holds here unchanged.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncGenerator
from math import inf

import httpx
import trustme
from moorage.auth.challenge import parse_challenges
from moorage.registry.oci import Registry, RepositoryName, routes
from moorage.registry.oci.errors import OciError
from moorage.registry.web.app import create_app
from moorage.registry.web.authority import Authority
from moorage.registry.web.gate import Gate
from moorage.registry.web.login import TokenServer

from tests.stage import Stage
from tests.wire.locked import PASSWORD, basic

__all__ = ["AskingStage", "Tokens", "certified"]

_FRESH = 60.0
"""Seconds for which a token is shown; it is good for longer, also where the tests take their time."""


class AskingStage(Stage):
    """A server that asks who one is. ``trust``: what its clients believe."""

    def __init__(self, authority: Authority, trust: ssl.SSLContext) -> None:
        self.authority, self.trust = authority, trust
        self.tokens = Tokens("admin", asks=True)

    def lock(self, registry: Registry) -> None:
        """Serves ``registry`` to those who may, from now on."""
        gate, tokens = Gate(registry, self.authority), TokenServer(self.authority)
        self.show(create_app(registry, gate=gate, tokens=tokens))


class Tokens(httpx.Auth):
    """Brings a token along, as a client does that knows what it is going to do: a body can be sent only once.

    Args:
        asks: whether the server is asked for a challenge first, with a request that has no body: so every challenge is
            seen to be right. Else that is done only where the API does not say what is needed, and every request is
            one request.
    """

    def __init__(self, user: str, password: str = PASSWORD, *, asks: bool) -> None:
        self._login, self._asks = basic(user, password), asks
        self._realm: httpx.URL | None = None
        self._service = ""
        self._held: dict[str, tuple[float, str]] = {}

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See httpx."""
        scope = None if self._asks else _needed(request)
        if scope is None or self._realm is None:
            first = yield httpx.Request(request.method, request.url, headers={"host": request.url.netloc.decode()})
            await first.aread()
            if first.status_code == 401:
                (challenge,) = parse_challenges(first.headers.get_list("www-authenticate"))
                self._realm, self._service = httpx.URL(challenge.parameters["realm"]), challenge.parameters["service"]
                scope = scope or challenge.parameters.get("scope", "")
        if scope is not None and self._realm is not None:
            if time.monotonic() - self._held.get(scope, (-inf, ""))[0] > _FRESH:
                asked = {"service": self._service, "scope": scope.split()}
                answer = yield httpx.Request("GET", self._realm, params=asked, headers=self._login)
                self._held[scope] = time.monotonic(), json.loads(await answer.aread())["token"]
            request.headers["authorization"] = f"Bearer {self._held[scope][1]}"
        yield request


def _needed(request: httpx.Request) -> str | None:
    """The scopes of a token that is good for the request; None: it is not one of the API."""
    path, _, query = request.url.raw_path.decode().partition("?")
    try:
        endpoint = routes.parse(request.method, path, query)
    except OciError:
        return None
    match endpoint:
        case routes.Ping():
            return ""
        case routes.ListRepositories():
            return "registry:catalog:*"
        case routes.StartUpload(source=RepositoryName() as source):
            return f"repository:{endpoint.repository}:pull,push repository:{source}:pull"
        case _:
            return f"repository:{endpoint.repository}:pull,push,delete"


def certified() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of a server on 127.0.0.1 and of its clients."""
    ca = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("127.0.0.1").configure_cert(server)
    ca.configure_trust(client)
    return server, client
