"""A client that knows a password, and registries that mean it ill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from moorage.puller.credentials import Credentials, FixedKeychain
from moorage.puller.fetch.engine import Fetcher
from moorage.puller.hosts import HostConfig
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.messages import Answer, RetryPolicy, Timeouts
from moorage.puller.remote import RemoteRegistry
from moorage.registry.oci import (
    Descriptor,
    Digest,
    RepositoryName,
    Tag,
)
from moorage.registry.oci.media_types import OCTET_STREAM

from tests.scripted import Reply, Scripted, Seen, scripted

__all__ = [
    "ALICE",
    "BASIC",
    "BLOB",
    "BYTES",
    "DEADLINE",
    "FAST",
    "HERE",
    "SHORT",
    "Answering",
    "ask",
    "client",
    "evil",
    "fetch",
    "login_first",
    "read",
    "secrets",
]

HERE = RepositoryName("team/app")
ALICE = Credentials("alice", "s3cret")
BASIC = {"www-authenticate": 'Basic realm="x"'}
FAST = RetryPolicy(attempts=2, first_delay=0.001, longest_delay=0.01)
SHORT = Timeouts(connect=2.0, answer=0.5, stall=0.5)
DEADLINE = 10.0
BYTES = bytes(range(256)) * 40
BLOB = Descriptor(OCTET_STREAM, Digest.of(BYTES), len(BYTES))

Answering = Callable[[Seen], Reply]


@asynccontextmanager
async def evil(answer: Answering) -> AsyncIterator[tuple[Scripted, RemoteRegistry]]:
    """A client that knows a password, and its registry."""
    async with scripted(answer) as server, client(server.host) as registry:
        yield server, registry


def client(host: str) -> Any:
    return RemoteRegistry.connect(
        host, keychain=FixedKeychain(ALICE), hosts=HostConfig.empty(), retry=FAST, timeouts=SHORT
    )


async def fetch(registry: RemoteRegistry, files: LayoutFiles, blob: Descriptor = BLOB) -> None:
    async with asyncio.timeout(DEADLINE), Fetcher(registry, HERE, files, retry=FAST) as fetcher:
        await fetcher.fetch(blob)


async def ask(asking: AbstractAsyncContextManager[Answer]) -> None:
    async with asking as answer:
        await answer.read_body(1000)


async def read(registry: RemoteRegistry, what: str, files: LayoutFiles) -> None:
    match what:
        case "blob":
            await fetch(registry, files)
        case "tags":
            [tag async for tag in registry.list_tags(HERE)]
        case "head":
            await registry.resolve_manifest(HERE, Tag("v1"))
        case _:
            await registry.read_manifest(HERE, Tag("v1"))


def login_first(answer: Answering) -> Answering:
    """The registry wants Basic before it answers, so that every request after the first carries the secret."""
    return lambda seen: answer(seen) if "authorization" in seen.headers else Reply(401, headers=BASIC)


def secrets(server: Scripted) -> list[str]:
    return [seen.target for seen in server.seen if {"authorization", "cookie"} & set(seen.headers)]
