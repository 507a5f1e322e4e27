"""A directory's writes are durable when they return: what is synced, when, how often, and what if it fails."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from moorage.storage_backends.base import ABSENT
from moorage.storage_backends.durability import Disk
from moorage.storage_backends.errors import StorageError, StorageFull, StorageUnavailable, UploadNotFound
from moorage.storage_backends.filesystem import FilesystemStore

from tests.suites.store_content import chunks, content, fill, listing, noted, outcome, private_files, upload_of


class RecordingDisk(Disk):
    """A disk that tells what was synced, in order, and can fail: ``failing`` is the errno of every sync to come."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.directories: list[str] = []
        self.failing = 0

    def sync_file(self, fd: int) -> None:
        """Notes the file's present path."""
        self._fail()
        self.files.append(os.readlink(f"/proc/self/fd/{fd}"))
        super().sync_file(fd)

    def sync_data(self, fd: int) -> None:
        """Notes the file's present path."""
        self._fail()
        self.files.append(os.readlink(f"/proc/self/fd/{fd}"))
        super().sync_data(fd)

    def sync_directory(self, path: str) -> None:
        """Notes the path."""
        self._fail()
        self.directories.append(path)
        super().sync_directory(path)

    def _fail(self) -> None:
        if self.failing:
            raise OSError(self.failing, os.strerror(self.failing))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "root"


@pytest.fixture
def disk() -> RecordingDisk:
    """What the store writes through."""
    return RecordingDisk()


@pytest.fixture
async def store(root: Path, disk: RecordingDisk) -> AsyncIterator[FilesystemStore]:
    """A store over ``root`` and ``disk``."""
    store = await FilesystemStore.open(root, disk=disk)
    yield store
    await store.close()


async def test_bytes_are_synced_before_they_have_a_name(root: Path) -> None:
    """When a file is synced its key still holds what it held, be it new or replaced."""
    seen: list[object] = []

    class Watching(Disk):
        def sync_file(self, fd: int) -> None:
            seen.append((root / "k/a").read_bytes() if (root / "k/a").exists() else None)
            super().sync_file(fd)

    store = await FilesystemStore.open(root, disk=Watching())
    version = await store.put("k/a", b"1")
    version = await store.put("k/a", b"2", expect=version)
    await store.put("k/a", b"3")
    assert seen == [None, b"1", b"2"]
    await store.close()


async def test_a_write_syncs_its_new_directories(store: FilesystemStore, root: Path, disk: RecordingDisk) -> None:
    """The first write into a new directory syncs it and what holds it; later ones sync it alone."""
    disk.directories.clear()
    await store.put("a/b/c/1", b"")
    assert {f"{root}/a/b/c", f"{root}/a/b", f"{root}/a", str(root)} == set(disk.directories)
    disk.directories.clear()
    await store.put("a/b/c/2", b"x")
    assert disk.directories == [f"{root}/a/b/c"]


async def test_a_directory_made_anew_is_synced_anew(store: FilesystemStore, root: Path, disk: RecordingDisk) -> None:
    """A directory that was emptied, removed and made again is not taken for the durable one of that name."""
    await store.put("a/b/c/1", b"")
    await store.delete("a/b/c/1")
    disk.directories.clear()
    await store.put("a/b/c/1", b"")
    assert {f"{root}/a/b/c", f"{root}/a/b"} <= set(disk.directories)


async def test_a_delete_is_synced(store: FilesystemStore, root: Path, disk: RecordingDisk) -> None:
    """The directory that stays is synced, also where another had deleted before us and may not have got so far."""
    await fill(store, "a/b/c/1", "a/b/c/2")
    for key, synced in (("a/b/c/1", "a/b/c"), ("a/b/c/2", "a/b"), ("a/b/c/2", "a/b")):
        disk.directories.clear()
        await store.delete(key)
        assert f"{root}/{synced}" in disk.directories


async def test_a_directory_that_vanishes_is_made_durable_by_its_parent(root: Path) -> None:
    """Where another writer removes the directory between our delete and our sync, its parent is synced instead."""

    class Vanishing(RecordingDisk):
        def sync_directory(self, path: str) -> None:
            if path.endswith("/c") and armed:
                os.unlink(f"{path}/2")
                os.rmdir(path)
            super().sync_directory(path)

    armed: list[bool] = []
    disk = Vanishing()
    store = await FilesystemStore.open(root, disk=disk)
    await fill(store, "a/b/c/1", "a/b/c/2")
    disk.directories.clear()
    armed.append(True)
    await store.delete("a/b/c/1")
    await store.close()
    assert disk.directories == [f"{root}/a/b/c", f"{root}/a/b"]


async def test_a_batch_syncs_once_at_its_end(store: FilesystemStore, root: Path, disk: RecordingDisk) -> None:
    """Inside a batch no directory is synced; at its end each is, once."""
    disk.directories.clear()
    async with store.batch():
        for i in range(10):
            await store.put(f"a/b/{i}", b"")
        await store.put("a/c/x", b"value")
        await store.delete("a/b/0")
        assert disk.directories == []
    assert sorted(disk.directories) == sorted([f"{root}/a/b", f"{root}/a/c", f"{root}/a", str(root)])


async def test_a_task_that_outlives_its_batch_syncs_itself(
    store: FilesystemStore, root: Path, disk: RecordingDisk
) -> None:
    """A write that comes after the end of the batch is durable when it returns."""
    ended = asyncio.Event()

    async def late() -> None:
        await ended.wait()
        disk.directories.clear()
        await store.put("late/x", b"")
        assert f"{root}/late" in disk.directories

    async with asyncio.TaskGroup() as group, store.batch():
        group.create_task(late())
        group.create_task(asyncio.sleep(0)).add_done_callback(
            lambda _: asyncio.get_running_loop().call_later(0.05, ended.set)
        )


async def test_concurrent_writers_share_syncs(store: FilesystemStore, disk: RecordingDisk) -> None:
    """Writers at once into one directory are served by a few syncs of it."""
    await store.put("a/b/first", b"")
    disk.directories.clear()
    await asyncio.gather(*[store.put(f"a/b/{i}", b"") for i in range(50)])
    assert 1 <= len(disk.directories) <= 5


async def test_an_append_is_synced_before_its_record_says_so(root: Path) -> None:
    """When the bytes are synced the record still stands at the old offset (promise M7)."""
    seen: list[int] = []

    class Watching(Disk):
        def sync_data(self, fd: int) -> None:
            record = next((root / "uploads").iterdir()).read_bytes()
            seen.append(int(record.split(b'"offset":')[1].split(b",")[0]))
            super().sync_data(fd)

    store = await FilesystemStore.open(root, disk=Watching())
    upload = await upload_of(store, "a", b"123")
    await store.append_upload(upload, 3, chunks(b"45"), noted())
    assert seen == [0, 3]
    await store.close()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.EIO, StorageUnavailable),
        (errno.EROFS, StorageUnavailable),
        (errno.ESTALE, StorageUnavailable),
        (errno.ENOMEM, StorageUnavailable),
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
    ],
    ids=errno.errorcode.get,
)
async def test_a_failed_sync_of_a_file_is_a_failed_write(
    store: FilesystemStore, root: Path, disk: RecordingDisk, code: int, expected: type[StorageError]
) -> None:
    """The write fails with its cause, the old value stays, no temporary file does, and the next write is fresh."""
    version = await store.put("a", b"old")
    disk.failing = code
    for attempt in (
        store.put("a", b"new"),
        store.put("a", b"new", expect=version),
        store.put("b", b"x", expect=ABSENT),
    ):
        with pytest.raises(expected) as caught:
            await attempt
        assert isinstance(caught.value.__cause__, OSError)
    disk.failing = 0
    assert (await listing(store), await content(store, "a"), private_files(root)) == (["a"], b"old", [])
    await store.put("a", b"new")
    assert await content(store, "a") == b"new"


async def test_a_failed_sync_of_a_directory_fails_all_who_wait_for_it(
    store: FilesystemStore, disk: RecordingDisk
) -> None:
    """Nobody is told that a write is durable when its directory is not, in a batch neither."""
    disk.failing = errno.EIO
    results = await asyncio.gather(*[outcome(store.put(f"k/{i}", b"")) for i in range(5)], outcome(store.delete("x")))
    assert results == [StorageUnavailable] * 6
    with pytest.raises(StorageUnavailable):
        async with store.batch():
            await store.put("k/9", b"")
    disk.failing = 0
    await store.put("k/9", b"")


async def test_nobody_waits_for_ever_when_the_disk_is_gone(store: FilesystemStore, disk: RecordingDisk) -> None:
    """Whatever goes wrong while directories are synced, every writer hears of it (a power cut on xfs showed this)."""

    def fall_over(path: str) -> None:
        raise RuntimeError(path)

    disk.sync_directory = fall_over  # type: ignore[method-assign]  # a fault that is no OSError
    async with asyncio.timeout(60):
        results = await asyncio.gather(*[outcome(store.put(f"k/{i}", b"")) for i in range(3)])
    assert results == [StorageUnavailable] * 3


async def test_bytes_whose_sync_failed_are_never_synced_again(
    store: FilesystemStore, root: Path, disk: RecordingDisk
) -> None:
    """An upload whose bytes could not be synced is dropped: a second sync might lie about them."""
    upload = await upload_of(store, "a", b"123")
    disk.failing = errno.EIO
    assert await outcome(store.append_upload(upload, 3, chunks(b"x"), noted())) is StorageUnavailable
    disk.failing = 0
    assert await outcome(store.stat_upload(upload)) is UploadNotFound
    assert private_files(root) == []


async def test_bytes_stay_whose_record_a_failing_disk_hides(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that cannot see an upload's record does not take its bytes for forgotten ones; the next one has both."""
    first = await FilesystemStore.open(root)
    upload = await upload_of(first, "a", b"123")
    await first.close()
    os.utime(root / ".moorage" / "staging" / upload, (0, 0))

    def fail(path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    with monkeypatch.context() as patched:
        patched.setattr("os.lstat", fail)
        with pytest.raises(StorageUnavailable):
            await FilesystemStore.open(root)
    second = await FilesystemStore.open(root)
    await second.commit_upload(upload, 3)
    assert await content(second, "a") == b"123"
    await second.close()
