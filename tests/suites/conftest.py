"""What several files of suites test: a store in a directory of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from moorage.storage_backends.filesystem import FilesystemStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "root"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[FilesystemStore]:
    """A store over ``root``."""
    store = await FilesystemStore.open(root)
    yield store
    await store.close()
