"""``RemoteRegistry`` keeps the protocol over a real server, and so does a server over a ``RemoteRegistry``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest_asyncio
from moorage.puller.remote import RemoteRegistry
from moorage.registry.oci import Registry
from moorage.registry.store import LocalRegistry
from moorage.registry.web.app import create_app
from moorage.storage_backends.memory import MemoryStore

from tests.servers import serving
from tests.stage import ON_STAGE, Stage, stage
from tests.suites.registry_suite import RegistrySuite

__all__ = ["stage"]

pytestmark = ON_STAGE


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def front_stage() -> AsyncIterator[Stage]:
    """A second server, which stands before the first."""
    stage = Stage()
    async with serving(stage) as url:
        stage.url = url
        yield stage


class TestOverServer(RegistrySuite):
    """client → server → LocalRegistry."""

    @pytest_asyncio.fixture(loop_scope="session")
    async def registry(self, stage: Stage) -> AsyncIterator[Registry]:
        """The client."""
        stage.show(create_app(await LocalRegistry.open(MemoryStore())))
        async with RemoteRegistry.connect(urlsplit(stage.url).netloc) as remote:
            yield remote


class TestOverTwoServers(RegistrySuite):
    """client → server → client → server → LocalRegistry."""

    @pytest_asyncio.fixture(loop_scope="session")
    async def registry(self, stage: Stage, front_stage: Stage) -> AsyncIterator[Registry]:
        """The client in front."""
        stage.show(create_app(await LocalRegistry.open(MemoryStore())))
        async with RemoteRegistry.connect(urlsplit(stage.url).netloc) as middle:
            front_stage.show(create_app(middle))
            async with RemoteRegistry.connect(urlsplit(front_stage.url).netloc) as remote:
                yield remote
