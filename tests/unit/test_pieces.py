"""Memory of many uploads at once: each gathers less, all together stay below a bound (reliability figures 5.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
from moorage.registry.oci import Digest
from moorage.registry.store import LocalRegistry
from moorage.storage_backends.filesystem import FilesystemStore
from moorage.storage_backends.pieces import Pieces

from tests.content import repository

_KIB = 1 << 10
_MIB = 1 << 20
_HERE = repository("a")


@pytest.mark.parametrize(
    ("transfers", "size"),
    [(1, _MIB), (31, _MIB), (32, _MIB), (33, 32 * _MIB // 33), (128, 256 * _KIB), (2048, 16 * _KIB), (4096, 16 * _KIB)],
)
def test_pieces_share_a_bound(transfers: int, size: int) -> None:
    """Up to 32 transfers a mebibyte each, beyond that 32 MiB shared, and never less than 16 KiB."""
    pieces = Pieces()
    with ExitStack() as stack:
        for _ in range(transfers):
            stack.enter_context(pieces.transfer())
        assert pieces.size == size
    assert pieces.size == _MIB


@pytest.mark.parametrize(("transfers", "is_written"), [(32, False), (64, True)])
async def test_an_upload_among_many_holds_less(tmp_path: Path, transfers: int, is_written: bool) -> None:
    """What one of 64 has gathered beyond half a mebibyte is on its way to the disk; among 32 it would still wait."""
    store = await FilesystemStore.open(tmp_path / "root")
    registry = await LocalRegistry.open(store)
    received, leave = asyncio.Barrier(transfers + 1), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):  # after a piece is full, the next one lets it go on to be written
            yield bytes(300 * _KIB)
        await received.wait()
        await leave.wait()

    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        uploads = [(await registry.start_upload(_HERE)).id for _ in range(transfers)]
        async with asyncio.TaskGroup() as group:
            for upload in uploads:
                group.create_task(registry.append_upload(_HERE, upload, body()))
            await received.wait()
            staged = tmp_path / "root" / ".moorage" / "staging"
            written = False
            async with asyncio.timeout(60):
                while written < is_written:  # a thread does it
                    await asyncio.sleep(0.01)
                    written = any(path.stat().st_size for path in staged.iterdir())
            assert any(path.stat().st_size for path in staged.iterdir()) == is_written
            leave.set()
        digest = Digest.of(bytes(900 * _KIB))
        assert (await registry.finish_upload(_HERE, uploads[0], digest)).size == 900 * _KIB
