"""The digest of a blob while it arrives: whoever hashes, each byte counts once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from moorage.puller.fetch.hashing import Hashing
from moorage.puller.fetch.ingest import Ingest
from moorage.puller.layout_files import LayoutFiles
from moorage.registry.oci import Descriptor, Digest

CONTENT = bytes(range(256)) * 4096
HALF = len(CONTENT) // 2


@pytest.fixture
def ingest(tmp_path: Path) -> Iterator[Ingest]:
    files = LayoutFiles(str(tmp_path / "layout"), create=True)
    blob = Descriptor("application/octet-stream", Digest.of(CONTENT), len(CONTENT))
    claimed = Ingest.claim(files, blob)
    assert claimed is not None
    yield claimed
    claimed.close()


def _bring(ingest: Ingest, hashing: Hashing, start: int, stop: int, *, content: bytes = CONTENT) -> None:
    piece = memoryview(content)[start:stop]
    hashing.take(start, piece)
    ingest.write(start, piece)


async def test_what_comes_in_order_is_hashed_in_hand(ingest: Ingest) -> None:
    """Nothing is left to read when the last byte is there."""
    hashing = Hashing(ingest)
    _bring(ingest, hashing, 0, HALF)
    assert hashing.position == HALF
    _bring(ingest, hashing, HALF, len(CONTENT))
    assert hashing.position == len(CONTENT)
    assert await hashing.finish()


async def test_what_comes_out_of_order_is_read_again(ingest: Ingest) -> None:
    """Two connections: the second half first."""
    hashing = Hashing(ingest)
    _bring(ingest, hashing, HALF, len(CONTENT))
    assert hashing.position == 0
    _bring(ingest, hashing, 0, HALF)
    assert await hashing.finish()


async def test_a_thread_takes_over_in_the_middle(ingest: Ingest) -> None:
    """It goes on where the bytes in hand ended, and they are its alone from then on."""
    hashing = Hashing(ingest)
    _bring(ingest, hashing, 0, HALF)
    hashing.follow()
    await asyncio.to_thread(_bring, ingest, hashing, HALF, len(CONTENT))
    assert await hashing.finish()
    assert hashing.position == len(CONTENT)


async def test_what_was_left_is_hashed_first(ingest: Ingest) -> None:
    """An earlier run brought the first half."""
    ingest.write(0, memoryview(CONTENT)[:HALF])
    hashing = Hashing(ingest)
    _bring(ingest, hashing, HALF, len(CONTENT))
    assert await hashing.finish()


@pytest.mark.parametrize("is_followed", [False, True], ids=["in hand", "followed"])
async def test_wrong_bytes_are_told(ingest: Ingest, is_followed: bool) -> None:
    """One bit is enough."""
    hashing = Hashing(ingest)
    if is_followed:
        hashing.follow()
    wrong = CONTENT[:-1] + b"\0"
    await asyncio.to_thread(_bring, ingest, hashing, 0, len(CONTENT), content=wrong)
    assert not await hashing.finish()


async def test_it_ends_with_the_fetch(ingest: Ingest) -> None:
    """A thread that waits for bytes that never come is told so."""
    hashing = Hashing(ingest)
    hashing.follow()
    ingest.fail(OSError("the fetch was stopped"))
    await hashing.stop()
    with pytest.raises(OSError, match="was stopped"):
        await hashing.finish()
