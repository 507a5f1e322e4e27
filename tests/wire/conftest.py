"""Where wire tests speak to: a server in this process, one that asks for a login over TLS, and (marker ``s3``) two
replicas over a bucket.

Law: behind the replicas' balancer every request meets another replica than the one before, so nothing that a client may
see can rest on the memory of one. ``local`` is then a third one. Tests of the server itself stay in this process.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio
from moorage.registry.oci import Registry
from moorage.registry.store import LocalRegistry
from moorage.registry.web.app import create_app
from moorage.registry.web.authority import Authority
from moorage.storage_backends.base import ObjectStore
from moorage.storage_backends.memory import MemoryStore
from moorage.storage_backends.s3 import Location, S3Store

from tests.s3.replicas import SETUPS, Replicas, serving_twice
from tests.s3.servers import running
from tests.servers import serving
from tests.stage import Stage, bare_client, stage, store
from tests.wire.asking import AskingStage, certified
from tests.wire.boat import hull
from tests.wire.following import Following
from tests.wire.locked import authority, files, foundation

__all__ = ["authority", "files", "foundation", "hull", "stage", "store"]

ASKING = "login"

_OF_THE_API = {"clients", "deletes", "lists", "pull", "push_blobs", "push_manifests", "ranges"}
_DAILY = {"minio redirects": _OF_THE_API, "versitygw serves": {"clients", "pull", "push_blobs", "ranges"}}
"""What CI runs (marker ``s3``): both servers and both ways. All of it: ``pytest tests/wire -m interop``."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of what clients may see run over every set-up."""
    module = metafunc.module.__name__.rpartition(".test_")[2]
    if module not in _OF_THE_API or "replicas" not in metafunc.fixturenames or "sparse" in metafunc.fixturenames:
        return
    is_served = metafunc.definition.get_closest_marker("served") is not None
    places = [pytest.param(None, id="here")]
    if not {"url", "stage", "store"} & set(inspect.signature(metafunc.function).parameters):
        places.append(pytest.param(ASKING, id="login over TLS"))
    for setup in SETUPS:
        marks = [pytest.mark.interop, *([pytest.mark.s3] if module in _DAILY.get(str(setup), ()) else [])]
        if not (is_served and setup.redirect):
            places.append(pytest.param(setup, id=str(setup), marks=marks))
    metafunc.parametrize("replicas", places, indirect=True, scope="session")


@pytest.fixture(scope="session")
def replicas(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas | None]:
    """Two replicas over a bucket; None: the server in this process."""
    setup = getattr(request, "param", None)
    if setup in (None, ASKING):
        yield None
        return
    with (
        running(setup.server, tmp_path_factory.mktemp(setup.server)) as server,
        serving_twice(server, redirect=setup.redirect) as replicas,
    ):
        yield replicas


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bucket(replicas: Replicas | None) -> AsyncIterator[ObjectStore | None]:
    """The replicas' store, opened here."""
    if replicas is None:
        yield None
        return
    with pytest.MonkeyPatch.context() as patch:
        for name, value in replicas.server.environment.items():
            patch.setenv(name, value)
        opened = await S3Store.open(Location.parse(replicas.root))
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def local(replicas: Replicas | None, bucket: ObjectStore | None, store: MemoryStore) -> Registry:
    """The server's core, empty."""
    if replicas is None or bucket is None:
        return await LocalRegistry.open(store)
    await asyncio.to_thread(replicas.empty)
    return await LocalRegistry.open(bucket)


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
    return (
        getattr(request.node, "callspec", None) is not None and request.node.callspec.params.get("replicas") == ASKING
    )


@pytest_asyncio.fixture(loop_scope="session")
async def url(replicas: Replicas | None, stage: Stage, asking: AskingStage, is_asked: bool, local: Registry) -> str:
    """Where the server listens: ``http://127.0.0.1:PORT``."""
    if replicas is not None:
        return replicas.url
    if is_asked:
        asking.lock(local)
        return asking.url
    stage.show(create_app(local))
    return stage.url


@pytest_asyncio.fixture(loop_scope="session")
async def wire(
    url: str, replicas: Replicas | None, asking: AskingStage, is_asked: bool
) -> AsyncIterator[httpx.AsyncClient]:
    """A bare client at the server, which follows its redirects, and logs in where it is asked to."""
    if is_asked:
        async with bare_client(url, httpx.AsyncHTTPTransport(verify=asking.trust)) as client:
            client.auth = asking.tokens
            yield client
        return
    async with bare_client(url, Following(replicas.server.endpoint) if replicas else None) as client:
        yield client
