"""What a directory promises beyond the contract: rights, layout, what a start does, what crashes leave, descriptors."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest
from moorage.storage_backends.base import ABSENT, ObjectStore
from moorage.storage_backends.errors import KeyInvalid, StorageError, UploadNotFound
from moorage.storage_backends.filesystem import FilesystemStore

from tests.descriptors import descriptors_below
from tests.suites.store_content import MIB, chunks, content, fill, listing, noted, outcome, private_files, upload_of


def modes(root: Path) -> set[tuple[str, int]]:
    """The rights of everything under the root."""
    return {("directory" if p.is_dir() else "file", p.stat().st_mode & 0o777) for p in [root, *root.rglob("*")]}


# -- layout and rights


async def test_a_key_is_a_path(store: FilesystemStore, root: Path) -> None:
    """The object ``a/b/c`` is the file ``a/b/c``, which ordinary tools may copy and restore."""
    await store.put("a/b/c", b"content")
    assert (root / "a/b/c").read_bytes() == b"content"
    (root / "a/b/d").write_bytes(b"restored")
    assert await content(store, "a/b/d") == b"restored"
    assert await listing(store, "a/") == ["a/b/c", "a/b/d"]


async def test_s5_nobody_else_may_read(store: FilesystemStore, root: Path) -> None:
    """Directories are 0700 and files 0600, whatever the umask allows."""
    old = os.umask(0)
    try:
        await store.put("a/b/c", b"x")
        await store.put("a/b/d", b"")
        await store.commit_upload(await upload_of(store, "e/f", b"x"), 1)
        await upload_of(store, "g", b"x")
    finally:
        os.umask(old)
    assert modes(root) == {("directory", 0o700), ("file", 0o600)}


async def test_s5_a_root_that_everybody_may_write_is_refused(root: Path) -> None:
    """A world-writable root refuses to start, and says what to do."""
    os.mkdir(root)
    os.chmod(root, 0o777)  # noqa: S103  # what is refused
    with pytest.raises(StorageError, match="chmod o-w"):
        await FilesystemStore.open(root)


@pytest.mark.parametrize("below", ["", "/root"])
async def test_a_root_that_is_a_file_is_refused(below: str) -> None:
    """A file is no root, nor is one in it; and that is what is said."""
    with pytest.raises(StorageError, match="is no directory"):
        await FilesystemStore.open(__file__ + below)


@pytest.mark.parametrize("key", [".moorage", ".moorage/tmp", ".moorage/staging/x"])
async def test_the_private_folder_is_no_key(store: FilesystemStore, key: str) -> None:
    """Nobody reaches the store's own files by a key."""
    for attempt in (store.put(key, b""), store.delete(key), store.create_upload(key, b""), store.copy("a", key)):
        assert await outcome(attempt) is KeyInvalid


async def test_neighbours_of_the_private_folder_are_keys(store: FilesystemStore) -> None:
    """A name that begins like the private folder's is an ordinary one; the folder itself is never listed."""
    await fill(store, ".moorage-x/a", ".m", ".moorage.y")
    assert await listing(store) == [".m", ".moorage-x/a", ".moorage.y"]
    assert await listing(store, ".moo", delimiter="/") == [".moorage-x/", ".moorage.y"]


async def test_s6_what_is_not_ours_is_skipped(store: FilesystemStore, root: Path) -> None:
    """Files of odd names, links, sockets and empty directories do not show and do not disturb."""
    await store.put("a/b", b"")
    (root / "a" / "odd name").write_bytes(b"")
    (root / "a" / "ümlaut").mkdir()
    (root / "a" / "empty" / "deep").mkdir(parents=True)
    (root / "a" / "link").symlink_to("b")
    os.mkfifo(root / "a" / "fifo")
    assert await listing(store) == ["a/b"]
    assert await listing(store, "a/", delimiter="/") == ["a/b"]
    for key in ("a/link", "a/fifo", "a/empty"):
        assert await outcome(store.stat(key)) is not None
        with pytest.raises(StorageError):
            await content(store, key)


async def test_what_a_file_system_keeps_in_its_root_does_not_show(root: Path) -> None:
    """A root may be a mount point. Its ``lost+found`` is nobody's but root's, so it is not even looked into."""
    lost = root / "lost+found"
    lost.mkdir(parents=True)
    (lost / "#12").write_bytes(b"")
    lost.chmod(0)
    store = await FilesystemStore.open(root)
    assert await listing(store) == await listing(store, delimiter="/") == []
    await store.close()
    lost.chmod(0o700)


async def test_deletes_leave_no_directories(store: FilesystemStore, root: Path) -> None:
    """Directories go with their last object, except the two levels that every write needs again."""
    await fill(store, "links/n/sha256/aa/u-1", "links/n/sha256/bb/u-1")
    await store.delete("links/n/sha256/aa/u-1")
    assert not (root / "links/n/sha256/aa").exists()
    await store.delete("links/n/sha256/bb/u-1")
    assert [p.name for p in (root / "links").rglob("*")] == ["n"]


# -- start


async def test_start_removes_what_crashes_left(root: Path) -> None:
    """Temporary files and bytes without a record are removed when they are a day old, younger ones stay."""
    first = await FilesystemStore.open(root)
    upload = await upload_of(first, "a", b"x")
    await first.close()
    yesterday = time.time() - 25 * 3600
    for folder, name, age in (("tmp", "old", yesterday), ("tmp", "new", None), ("staging", "0" * 32, yesterday)):
        path = root / ".moorage" / folder / name
        path.write_bytes(b"x")
        if age is not None:
            os.utime(path, (age, age))
    os.utime(root / ".moorage" / "staging" / upload, (yesterday, yesterday))
    second = await FilesystemStore.open(root)
    assert sorted(private_files(root)) == sorted(["new", upload])
    await second.commit_upload(upload, 1)
    await second.close()


async def test_a_store_opens_again_with_all_it_had(root: Path) -> None:
    """Closing and opening changes nothing, and close ends every thread."""
    before = set(threading.enumerate())
    for i in range(3):
        store = await FilesystemStore.open(root)
        await store.put(f"k/{i}", b"")
        assert len(await listing(store, "k/")) == i + 1
        await store.close()
    assert not [t.name for t in set(threading.enumerate()) - before if t.name.startswith("moorage")]


# -- after a crash


async def test_bytes_beyond_the_record_are_not_there(store: FilesystemStore, root: Path) -> None:
    """What a killed writer left behind its record is cut off before the next byte, or the commit."""
    for end in (b"", b"456"):
        upload = await upload_of(store, "a", b"123")
        with (root / ".moorage" / "staging" / upload).open("ab") as staged:
            staged.write(b"left by a writer that was killed")
        assert (await store.stat_upload(upload)).offset == 3
        if end:
            await store.append_upload(upload, 3, chunks(end), noted())
        await store.commit_upload(upload, 3 + len(end))
        assert await content(store, "a") == b"123" + end


@pytest.mark.parametrize("raw", [b"", b"\0" * 90, b"{}", b'{"key":"a","offset":3,"note":"","check":"0"}', b"\xff"])
async def test_a_torn_record_is_no_upload(store: FilesystemStore, root: Path, raw: bytes) -> None:
    """A record that the power cut tore is unknown, listed like any other, and can be aborted."""
    upload = await upload_of(store, "a", b"123")
    (root / "uploads" / upload).write_bytes(raw)
    for attempt in (store.stat_upload(upload), store.commit_upload(upload, 3)):
        assert await outcome(attempt) is UploadNotFound
    assert await outcome(store.append_upload(upload, 3, chunks(b"x"), noted())) is UploadNotFound
    assert await listing(store) == [f"uploads/{upload}"]
    await store.abort_upload(upload)
    assert (await listing(store), private_files(root)) == ([], [])


@pytest.mark.parametrize("left", [None, b"12"], ids=["no file", "short file"])
async def test_a_record_without_its_bytes_is_no_upload(store: FilesystemStore, root: Path, left: bytes | None) -> None:
    """A record that survived a power cut without all of its bytes is unknown, never wrong."""
    upload = await upload_of(store, "a", b"123")
    staged = root / ".moorage" / "staging" / upload
    staged.unlink()
    if left is not None:
        staged.write_bytes(left)
    attempts = (
        store.stat_upload(upload),
        store.commit_upload(upload, 3),
        store.append_upload(upload, 3, chunks(b"x"), noted()),
    )
    assert [await outcome(attempt) for attempt in attempts] == [UploadNotFound] * 3


async def test_an_empty_directory_left_by_a_crash_does_not_show(store: FilesystemStore, root: Path) -> None:
    """Directories in which the crash left no file are no common prefix, and a name among them is free."""
    (root / "links" / "ghost" / "sha256").mkdir(parents=True)
    assert await listing(store, delimiter="/") == []
    assert await listing(store, "links/", delimiter="/") == []
    await store.put("links/ghost", b"")
    assert await listing(store, "links/", delimiter="/") == ["links/ghost"]


async def test_no_descriptor_is_kept(store: FilesystemStore, root: Path) -> None:
    """Whatever is read, left, cancelled or refused, every descriptor is given back."""
    await store.put("big", b"x" * 4 * MIB)
    upload = await upload_of(store, "a", b"123")
    before = descriptors_below(root)
    for _ in range(5):
        async with store.read("big") as reading:
            await anext(aiter(reading))
        task = asyncio.create_task(_read_forever(store, "big"))
        await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await outcome(store.append_upload(upload, 9, chunks(b"x"), noted()))
        await outcome(store.put("big", b"x", expect=ABSENT))
        await outcome(store.stat("absent"))
        assert [e async for e in store.list("")]
    while descriptors_below(root) != before:  # noqa: ASYNC110  # the thread of who was cancelled sends no event
        await asyncio.sleep(0.01)


async def _read_forever(store: ObjectStore, key: str) -> None:
    while True:
        async with store.read(key) as reading:
            async for _ in reading:
                await asyncio.sleep(0)


async def test_what_is_not_cached_is_read_by_threads(store: FilesystemStore, root: Path) -> None:
    """Bytes that the page cache gave up come back whole, small or big, also when the reader goes away."""
    data = os.urandom(5 * MIB + 11)
    await store.put("big", data)
    await store.put("small", data[:5000])
    for _ in range(3):
        for name in ("big", "small"):
            with (root / name).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert await content(store, "small") == data[:5000]
        async with store.read("big") as reading:
            await anext(aiter(reading))
        assert await content(store, "big") == data
