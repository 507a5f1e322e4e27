"""Where wire tests speak to: a server in this process, one that asks for a login over TLS, and real ones (``places``).

Law: behind the replicas' balancer every request meets another replica than the one before, so nothing that a client may
see can rest on the memory of one. ``local`` is then a third one. Tests of the server itself stay in this process.
What CI runs of it has the marker ``s3``; all of it: ``pytest tests/wire -m interop``.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from moorage.registry.oci import Registry
from moorage.registry.store import LocalRegistry
from moorage.registry.web.app import create_app
from moorage.registry.web.authority import Authority
from moorage.storage_backends.base import UPLOADS, CommonPrefix, ObjectStore
from moorage.storage_backends.memory import MemoryStore
from moorage.storage_backends.urls import open_store

from tests.servers import serving
from tests.stage import Stage, bare_client, stage, store
from tests.wire.asking import AskingStage, certified
from tests.wire.boat import hull
from tests.wire.locked import authority, files, foundation
from tests.wire.places import OF_THE_API, PLACES, Place

__all__ = ["authority", "files", "foundation", "hull", "stage", "store"]

ASKING = "login over TLS"

_KEPT = ("format", "auth/", UPLOADS)
"""What makes a store a registry, what logins share, and what nobody else can name."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of what clients may see run in every place."""
    module = metafunc.module.__name__.rpartition(".test_")[2]
    if module not in OF_THE_API or "place" not in metafunc.fixturenames or "sparse" in metafunc.fixturenames:
        return
    is_served = metafunc.definition.get_closest_marker("served") is not None
    is_plain = bool({"url", "stage", "store"} & set(inspect.signature(metafunc.function).parameters))
    places = [pytest.param(None, id="here")]
    if not is_plain:
        places.append(pytest.param(ASKING, id=ASKING))
    for name, kind in PLACES.items():
        marks = [pytest.mark.interop, *([pytest.mark.s3] if module in kind.daily else [])]
        if not (is_served and kind.redirects) and not (is_plain and kind.asks):
            places.append(pytest.param(name, id=name, marks=marks))
    metafunc.parametrize("place", places, indirect=True, scope="session")


@pytest.fixture(scope="session")
def place(
    request: pytest.FixtureRequest, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place | None]:
    """Where the server is; None: in this process."""
    name = getattr(request, "param", None)
    if name in (None, ASKING):
        yield None
        return
    with PLACES[name].starts(files, tmp_path_factory.mktemp("place")) as place:
        yield place


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def below(place: Place | None) -> AsyncIterator[ObjectStore | None]:
    """The place's store, opened here."""
    if place is None:
        yield None
        return
    with pytest.MonkeyPatch.context() as patch:
        for name, value in place.environment.items():
            patch.setenv(name, value)
        opened = await open_store(place.root)
    with pytest.MonkeyPatch.context() as patch:
        # What a test prepares are thousands of puts: none of them may fail because the machine was busy for seconds.
        patch.setattr("moorage.storage_backends.s3.calls.DEADLINE", 60.0)
        yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def local(below: ObjectStore | None, store: MemoryStore) -> Registry:
    """The server's core, empty."""
    if below is None:
        return await LocalRegistry.open(store)
    left = [found.key async for found in below.list("") if not isinstance(found, CommonPrefix)]
    await asyncio.gather(*(below.delete(key) for key in left if not key.startswith(_KEPT)))
    return await LocalRegistry.open(below)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def asking(authority: Authority) -> AsyncIterator[AskingStage]:
    """A server that asks who one is."""
    tls, trust = certified()
    stage = AskingStage(authority, trust)
    async with serving(stage, tls=tls) as url:
        stage.url = url
        yield stage


@pytest.fixture
def is_asked(request: pytest.FixtureRequest) -> bool:
    """Whether the test speaks to that one."""
    return getattr(request.node, "callspec", None) is not None and request.node.callspec.params.get("place") == ASKING


@pytest_asyncio.fixture(loop_scope="session")
async def url(place: Place | None, stage: Stage, asking: AskingStage, is_asked: bool, local: Registry) -> str:
    """Where the server listens: ``http://127.0.0.1:PORT``."""
    if place is not None:
        return place.url
    if is_asked:
        asking.lock(local)
        return asking.url
    stage.show(create_app(local))
    return stage.url


@pytest_asyncio.fixture(loop_scope="session")
async def wire(url: str, place: Place | None, asking: AskingStage, is_asked: bool) -> AsyncIterator[httpx.AsyncClient]:
    """A bare client at the server, which follows its redirects, and logs in where it is asked to."""
    transport, tokens = (place.transport(), place.tokens) if place else (None, None)
    if is_asked:
        transport, tokens = httpx.AsyncHTTPTransport(verify=asking.trust), asking.tokens
    async with bare_client(url, transport) as client:
        if tokens:
            client.auth = tokens
        yield client
