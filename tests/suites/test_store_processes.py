"""One directory, several processes and threads that write it: no update is lost, no committed byte is in reach."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from moorage.storage_backends.base import ABSENT
from moorage.storage_backends.errors import Conflict, OffsetMismatch, StorageUnavailable, UploadNotFound
from moorage.storage_backends.filesystem import FilesystemStore

from tests.suites.store_content import (
    MIB,
    chunks,
    content,
    increment,
    listing,
    noted,
    outcome,
    private_files,
    upload_of,
)

ROUNDS = 25


_COUNT = """
import asyncio, sys
from moorage.storage_backends.filesystem import FilesystemStore
from tests.suites.store_content import increment

async def main():
    store = await FilesystemStore.open(sys.argv[1])
    await increment(store, "counter", int(sys.argv[2]))
    await store.close()

asyncio.run(main())
"""


async def test_no_update_is_lost_between_processes(store: FilesystemStore, root: Path) -> None:
    """Processes that count by compare-and-swap, several at once, count everything."""
    await store.put("counter", b"0")
    command = (sys.executable, "-c", _COUNT, str(root), str(ROUNDS))
    processes = [await asyncio.create_subprocess_exec(*command) for _ in range(3)]
    await increment(store, "counter", ROUNDS)
    assert [await process.wait() for process in processes] == [0, 0, 0]
    assert await content(store, "counter") == b"%d" % (4 * ROUNDS)


def test_one_creator_wins_between_threads(root: Path) -> None:
    """Of threads with a store each over one root exactly one creates a key, every time."""
    wins: list[int] = []

    def create(me: int) -> None:
        async def run() -> None:
            store = await FilesystemStore.open(root)
            for i in range(ROUNDS):
                with contextlib.suppress(Conflict):
                    await store.put(f"k/{i}", b"%d" % me, expect=ABSENT)
                    wins.append(i)
            await store.close()

        asyncio.run(run())

    threads = [threading.Thread(target=create, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == list(range(ROUNDS))


async def test_another_store_goes_on_with_an_upload(store: FilesystemStore, root: Path) -> None:
    """Any worker process may append to, look at and commit any upload."""
    other = await FilesystemStore.open(root)
    upload = await upload_of(store, "a", b"123")
    await other.append_upload(upload, 3, chunks(b"456"), noted())
    assert (await store.stat_upload(upload)).note == b"note@6"
    await other.commit_upload(upload, 6)
    assert await content(store, "a") == b"123456"
    await other.close()


async def test_bytes_that_arrive_are_progress(store: FilesystemStore, root: Path) -> None:
    """Whoever drops abandoned uploads sees that one lives, though its append may take a day and is recorded at last."""
    upload = await store.create_upload("a", b"")
    os.utime(root / "uploads" / upload, (1, 1))
    assert (await store.stat_upload(upload)).modified == 1
    seen: list[float] = []

    async def watched() -> AsyncIterator[bytes]:
        yield bytes(MIB)
        os.utime(root / ".moorage" / "staging" / upload, (2, 2))
        for _ in range(2):  # with the second of these the block before it was written
            yield bytes(MIB)
        seen.append((await store.stat_upload(upload)).modified)

    await store.append_upload(upload, 0, watched(), noted())
    assert seen[0] > 2


async def test_a_busy_upload_is_waited_for_and_then_refused(
    store: FilesystemStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds another writer waits for a while, and is then told where the upload stands."""
    monkeypatch.setattr("moorage.storage_backends.staging._PATIENCE", 0.1)
    upload = await upload_of(store, "a", b"123")
    with (root / ".moorage" / "staging" / upload).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        begun = time.monotonic()
        with pytest.raises(OffsetMismatch):
            await store.append_upload(upload, 3, chunks(b"x"), noted())
        assert 0.05 < time.monotonic() - begun < 5
    await store.append_upload(upload, 3, chunks(b"x"), noted())


async def test_a_lock_that_is_never_given_back_is_an_error(
    store: FilesystemStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped while it held a lock makes writes fail, not hang."""
    monkeypatch.setattr("moorage.storage_backends.locks._PATIENCE", 0.1)
    version = await store.put("a", b"1")
    with contextlib.ExitStack() as held:
        for stripe in range(64):
            file = held.enter_context((root / ".moorage" / "locks" / f"{stripe:02x}").open("wb"))
            fcntl.flock(file, fcntl.LOCK_EX)
        for attempt in (store.put("a", b"2", expect=version), store.delete("a"), store.copy("a", "b")):
            assert await outcome(attempt) is StorageUnavailable
    assert await listing(store) == ["a"]
    assert private_files(root) == []


async def test_a_committed_file_is_out_of_reach(store: FilesystemStore, root: Path) -> None:
    """A writer that opened the bytes before the commit and got their lock after it cannot change them."""
    upload = await upload_of(store, "a", b"123")
    with (root / ".moorage" / "staging" / upload).open("rb") as late:
        fcntl.flock(late, fcntl.LOCK_EX)
        append = asyncio.create_task(store.append_upload(upload, 3, chunks(b"x"), noted()))
        await asyncio.sleep(0.05)
        os.rename(root / ".moorage" / "staging" / upload, root / "a")
        os.unlink(root / "uploads" / upload)
    assert await outcome(append) is UploadNotFound
    assert (root / "a").read_bytes() == b"123"
    assert private_files(root) == []
