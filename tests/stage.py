"""Fixtures of tests that speak HTTP: one real server for the whole session, a fresh registry behind it for each test.

Law: assertions are about what is on the wire; ``local`` is used only to bring content in. Starting a server costs more
than most tests, so they share one, and with it the event loop: their modules say ``pytestmark = ON_STAGE``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from moorage.registry.oci import Registry
from moorage.registry.store import LocalRegistry
from moorage.registry.web.app import create_app
from moorage.storage_backends.memory import MemoryStore

from tests.servers import serving

__all__ = ["ON_STAGE", "Stage", "bare_client", "local", "stage", "store", "url", "wire"]

ON_STAGE = pytest.mark.asyncio(loop_scope="session")


class Stage:
    """An ASGI app that is whatever the test put on."""

    url: str

    def show(self, app: Any) -> None:
        """Serves ``app`` from now on."""
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


def bare_client(url: str, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """A client that adds nothing of its own: no redirects, no environment, no default Accept or encoding."""
    transport = transport or httpx.AsyncHTTPTransport(verify=False)  # plain HTTP: reading the authorities takes 14 ms
    client = httpx.AsyncClient(base_url=url, transport=transport, trust_env=False, follow_redirects=False, timeout=60)
    for name in ("accept", "accept-encoding", "user-agent"):
        del client.headers[name]
    return client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    """The server."""
    stage = Stage()
    async with serving(stage) as url:
        stage.url = url
        yield stage


@pytest_asyncio.fixture(loop_scope="session")
async def store() -> AsyncIterator[MemoryStore]:
    """The bytes."""
    store = MemoryStore()
    yield store
    await store.close()


@pytest_asyncio.fixture(loop_scope="session")
async def local(store: MemoryStore) -> Registry:
    """The server's core."""
    return await LocalRegistry.open(store)


@pytest_asyncio.fixture(loop_scope="session")
async def url(stage: Stage, local: Registry) -> str:
    """Where the server listens: ``http://127.0.0.1:PORT``."""
    stage.show(create_app(local))
    return stage.url


@pytest_asyncio.fixture(loop_scope="session")
async def wire(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A bare client at the server."""
    async with bare_client(url) as client:
        yield client
