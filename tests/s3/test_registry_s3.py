"""``LocalRegistry`` over S3 keeps the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from moorage.registry.oci import Registry
from moorage.registry.store import LocalRegistry
from moorage.storage_backends.s3 import Location, S3Store

from tests.s3.servers import S3Server
from tests.suites.registry_suite import RegistrySuite


class TestOverS3(RegistrySuite):
    """The server's core over a bucket."""

    LOCATES = True

    @pytest.fixture
    async def registry(
        self, server: S3Server, patience: None, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[Registry]:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = await S3Store.open(Location.parse(server.url(server.bucket(), "team/registry")))
        yield await LocalRegistry.open(store)
        await store.close()
