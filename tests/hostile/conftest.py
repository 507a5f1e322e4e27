"""Hostile tests run over a directory, and look after each request whether anything changed that must not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from moorage.registry.oci import Registry
from moorage.registry.store import LocalRegistry
from moorage.registry.web.app import create_app
from moorage.storage_backends.filesystem import FilesystemStore

from tests.content import image, push, repository
from tests.stage import Stage, bare_client, stage
from tests.wire.talk import NAME

__all__ = ["stage"]

Canary = Callable[[], str]


@pytest_asyncio.fixture(loop_scope="session")
async def local(tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry over ``root``, with one tagged image in it."""
    store = await FilesystemStore.open(tmp_path / "root")
    registry = await LocalRegistry.open(store)
    await push(registry, repository(NAME), image("there"), "there")
    yield registry
    await store.close()


@pytest_asyncio.fixture(loop_scope="session")
async def url(stage: Stage, local: Registry) -> str:
    """Where the server listens."""
    stage.show(create_app(local))
    return stage.url


@pytest_asyncio.fixture(loop_scope="session")
async def wire(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A bare client at the server."""
    async with bare_client(url) as client:
        yield client


@pytest.fixture
def canary(tmp_path: Path, local: Registry) -> Canary:
    """A fingerprint of the store's directory and of one beside it: names, modes, link targets, bytes."""
    del local  # only so that the root is filled before
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "secret").write_bytes(b"canary")
    return lambda: fingerprint(tmp_path)


def fingerprint(root: Path) -> str:
    """The hash of every file and link below ``root``; locks hold nothing, and empty directories are no change."""
    hasher = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_dir() or path.parent.name == "locks":
            continue
        try:
            content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            hasher.update(repr((str(path.relative_to(root)), path.lstat().st_mode, content)).encode())
        except FileNotFoundError:
            hasher.update(b"something is still going on")
    return hasher.hexdigest()
