"""A registry that wants tokens, the service that gives them, and a client that is told of no other.

Rule: what the service answers is the test's; the registry takes what the service granted, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import parse_qsl, urlsplit

from moorage.puller.credentials import Credentials, FixedKeychain, Keys
from moorage.puller.hosts import HostConfig
from moorage.puller.remote import RemoteRegistry
from moorage.puller.transport import RetryPolicy

from tests.scripted import Reply, Scripted, Seen, scripted

__all__ = ["ALICE", "PULL", "World", "connected", "json_reply", "told", "world_of"]

ALICE = Credentials("alice", "s3cret")
PULL = "repository:team/app:pull"

_UPLOAD = "/v2/team/app/blobs/uploads/1"


def json_reply(status: int, document: Mapping[str, object]) -> Reply:
    """An answer of JSON."""
    return Reply(status, json.dumps(document).encode(), {"content-type": "application/json"})


def told(seen: Seen) -> list[tuple[str, str]]:
    """What a token service was told: the query, or the form of a POST."""
    return parse_qsl(seen.body.decode() if seen.method == "POST" else urlsplit(seen.target).query)


@dataclass
class World:
    """A registry that wants tokens, and the service that gives them, on one host."""

    token: Callable[[Seen], Reply]
    challenge: str = 'Bearer realm="{url}/token",service="the service",scope="{scope}"'
    scope: str = PULL
    url: str = ""
    valid: set[str] = field(default_factory=set)
    asked: list[Seen] = field(default_factory=list)

    def __call__(self, seen: Seen) -> Reply:
        if not seen.target.startswith("/v2/"):
            self.asked.append(seen)
            return self.token(seen)
        if seen.headers.get("authorization") in self.valid:
            return Reply(202, headers={"location": _UPLOAD}) if seen.method == "POST" else Reply(200)
        challenge = self.challenge.format(url=self.url, scope=self.scope)
        return Reply(401, headers={"www-authenticate": challenge})

    def grant(self, name: str = "token", more: Mapping[str, object] = MappingProxyType({})) -> Reply:
        """A new token, and nothing but it and ``more`` in the answer."""
        token = f"t{len(self.valid)}"
        self.valid.add(f"Bearer {token}")
        return json_reply(200, {name: token, **more})


@asynccontextmanager
async def connected(world: World, keys: Keys | Credentials | None) -> AsyncIterator[tuple[Scripted, RemoteRegistry]]:
    """The registry, and a client that has ``keys`` and does not try twice."""
    keychain = FixedKeychain(keys) if keys is None or isinstance(keys, Credentials) else keys
    async with (
        scripted(world) as server,
        RemoteRegistry.connect(
            server.host, keychain=keychain, hosts=HostConfig.empty(), retry=RetryPolicy(attempts=1)
        ) as registry,
    ):
        world.url = server.url
        yield server, registry


def world_of(token: Callable[[World, Seen], Reply], challenge: str = World.challenge, scope: str = PULL) -> World:
    """A world whose service knows it, for granting."""
    world = World(lambda seen: token(world, seen), challenge, scope)
    return world
