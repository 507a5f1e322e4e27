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
from moorage.registry.oci import Registry
from moorage.registry.web.app import create_app
from moorage.registry.web.authority import Authority
from moorage.registry.web.gate import Gate
from moorage.registry.web.login import TokenServer

from tests.stage import Stage
from tests.wire.locked import basic

__all__ = ["AskingStage", "Tokens", "certified"]

_FRESH = 60.0
"""Seconds for which a token is shown; it is good for longer, also where the tests take their time."""


class AskingStage(Stage):
    """A server that asks who one is. ``trust``: what its clients believe."""

    def __init__(self, authority: Authority, trust: ssl.SSLContext) -> None:
        self.authority, self.trust = authority, trust
        self.tokens = Tokens("admin")

    def lock(self, registry: Registry) -> None:
        """Serves ``registry`` to those who may, from now on."""
        gate, tokens = Gate(registry, self.authority), TokenServer(self.authority)
        self.show(create_app(registry, gate=gate, tokens=tokens))


class Tokens(httpx.Auth):
    """Brings a token along, as a client does that knows what it is going to do.

    It asks the server for a challenge first, with a request that has no body: a body can be sent only once.
    """

    def __init__(self, user: str) -> None:
        self._user = user
        self._held: dict[str, tuple[float, str]] = {}

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See httpx."""
        first = yield httpx.Request(request.method, request.url, headers={"host": request.url.netloc.decode()})
        await first.aread()
        if first.status_code == 401:
            (challenge,) = parse_challenges(first.headers.get_list("www-authenticate"))
            asked = dict(challenge.parameters)
            scope = asked.get("scope", "")
            if time.monotonic() - self._held.get(scope, (-inf, ""))[0] > _FRESH:
                realm = httpx.URL(asked["realm"], params={"service": asked["service"], "scope": scope})
                answer = yield httpx.Request("GET", realm, headers=basic(self._user))
                self._held[scope] = time.monotonic(), json.loads(await answer.aread())["token"]
            request.headers["authorization"] = f"Bearer {self._held[scope][1]}"
        yield request


def certified() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of a server on 127.0.0.1 and of its clients."""
    ca = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert("127.0.0.1").configure_cert(server)
    ca.configure_trust(client)
    return server, client
