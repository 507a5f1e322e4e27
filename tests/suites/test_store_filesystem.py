"""``FilesystemStore`` keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from moorage.storage_backends.base import ObjectStore
from moorage.storage_backends.filesystem import FilesystemStore

from tests.suites.store_suite import StoreSuite


class TestFilesystemStore(StoreSuite):
    """The suite over a directory."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[ObjectStore]:
        """A store over a directory of its own."""
        store = await FilesystemStore.open(tmp_path / "root")
        yield store
        await store.close()
