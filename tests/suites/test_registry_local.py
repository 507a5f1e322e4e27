"""``LocalRegistry`` keeps the protocol on every store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from moorage.registry.oci import Registry
from moorage.registry.store import LocalRegistry
from moorage.storage_backends.base import Capabilities
from moorage.storage_backends.filesystem import FilesystemStore
from moorage.storage_backends.memory import MemoryStore

from tests.suites.registry_suite import DeleterSuite, RegistrySuite, WriterSuite


class TestOverMemory(RegistrySuite):
    """The server's core over the store in memory."""

    @pytest.fixture
    async def registry(self) -> AsyncIterator[Registry]:
        store = MemoryStore()
        yield await LocalRegistry.open(store)
        await store.close()


class TestOverFilesystem(RegistrySuite):
    """The server's core over a directory."""

    @pytest.fixture
    async def registry(self, tmp_path: Path) -> AsyncIterator[Registry]:
        store = await FilesystemStore.open(tmp_path / "root")
        yield await LocalRegistry.open(store)
        await store.close()


class TestOverFarMemory(WriterSuite, DeleterSuite):
    """What writes, over a store that wants several calls at once, as S3 does."""

    @pytest.fixture
    async def registry(self) -> AsyncIterator[Registry]:
        store = MemoryStore()
        store.capabilities = Capabilities(conditional_delete=True, concurrency=4)
        yield await LocalRegistry.open(store)
        await store.close()
