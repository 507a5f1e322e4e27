"""A full disk is a clear error and no more: reads go on, nothing acknowledged is lost, room heals it (promise F8)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from moorage.registry.oci import Registry, RepositoryName, StorageFull
from moorage.registry.store import LocalRegistry
from moorage.storage_backends import errors as storage
from moorage.storage_backends.base import ObjectStore
from moorage.storage_backends.filesystem import FilesystemStore

from tests.content import Content, image, push, read_bytes
from tests.crash.volume import SmallDisk
from tests.suites.store_content import chunks, content, listing, noted, outcome, private_files

pytestmark = [pytest.mark.crash, pytest.mark.root]

HOME = RepositoryName.parse("team/app")
SHORTAGES = [
    pytest.param("size=6m", id="bytes"),
    pytest.param("size=64m,nr_inodes=250", id="inodes"),
]


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk with little room, and a file on it to remove when room is wanted."""
    with SmallDisk(tmp_path / "disk", request.param) as small:
        for number in range(40):
            (small.path / f"ballast{number}").write_bytes(b"x" * 50_000)
        yield small.path


@pytest.fixture
async def store(disk: Path) -> AsyncIterator[FilesystemStore]:
    """A store on the small disk."""
    store = await FilesystemStore.open(disk / "root")
    yield store
    await store.close()


def make_room(disk: Path) -> None:
    """Somebody removes files that are not ours."""
    for ballast in disk.glob("ballast*"):
        ballast.unlink()


async def fill_up(put: Callable[[int], Awaitable[object]]) -> int:
    """Writes until there is no room; returns how often that worked."""
    for number in range(1000):
        if await outcome(put(number)) is storage.StorageFull:
            return number
    pytest.fail("the disk never was full")


@pytest.mark.parametrize("disk", SHORTAGES, indirect=True)
async def test_f8_a_store_on_a_full_disk(store: FilesystemStore, disk: Path) -> None:
    """Puts say that there is no room and leave nothing; what was put is read, and replaced once there is room."""
    taken = await fill_up(lambda number: store.put(f"k/{number}", b"x" * 20_000))
    assert await listing(store, "k/") == sorted(f"k/{number}" for number in range(taken))
    assert await content(store, "k/0") == b"x" * 20_000
    assert private_files(disk / "root") == []
    for _ in range(3):
        assert await outcome(store.put("k/more", b"x" * 20_000)) is storage.StorageFull
    make_room(disk)
    await store.put("k/more", b"x" * 20_000)
    await store.put("k/0", b"new")
    assert (await content(store, "k/0"), await content(store, "k/more")) == (b"new", b"x" * 20_000)


@pytest.mark.parametrize("disk", [SHORTAGES[1]], indirect=True)
async def test_f8_failed_writes_use_nothing_up(store: FilesystemStore, disk: Path) -> None:
    """Where the files have run out, directories made for a write that failed are taken back; a delete gives room."""
    await store.put("links/n/first", b"")
    await fill_up(lambda number: store.put(f"k/{number}", b""))
    await store.delete("k/0")
    await store.delete("k/1")
    free = os.statvfs(disk).f_ffree
    for number in range(20):
        assert await outcome(store.put(f"links/n/sha256/{number}/u", b"")) is storage.StorageFull
        assert await outcome(store.put(f"links/n/sha512/{number}/u", b"x")) is storage.StorageFull
        assert os.statvfs(disk).f_ffree == free
    await store.put("k/0", b"")


@pytest.mark.parametrize("disk", [SHORTAGES[0]], indirect=True)
async def test_f8_an_upload_on_a_full_disk(store: FilesystemStore, disk: Path) -> None:
    """An append without room changes nothing, gives back what it took, and goes on from the same place later."""
    upload = await store.create_upload("a", b"")
    await store.append_upload(upload, 0, chunks(b"1" * 100_000), noted())
    big = [b"2" * 65_536] * 100
    for _ in range(3):
        assert await outcome(store.append_upload(upload, 100_000, chunks(*big), noted())) is storage.StorageFull
        assert (await store.stat_upload(upload)).offset == 100_000
        assert (disk / "root" / ".moorage" / "staging" / upload).stat().st_size == 100_000
    make_room(disk)
    await store.append_upload(upload, 100_000, chunks(*big[:20]), noted())
    await store.commit_upload(upload, 100_000 + 20 * 65_536)
    assert await content(store, "a") == b"1" * 100_000 + b"2" * 20 * 65_536


@pytest.mark.parametrize("disk", SHORTAGES, indirect=True)
async def test_f8_a_registry_on_a_full_disk(store: ObjectStore, disk: Path) -> None:
    """Pushes are refused as full, pulls go on, and the refused image goes through when there is room."""
    registry = await LocalRegistry.open(store)
    images = [image(f"full-{number}", layers=1, size=30_000) for number in range(400)]
    pushed: list[Content] = []
    for candidate in images:
        try:
            await push(registry, HOME, candidate, f"v{len(pushed)}", "latest")
        except (storage.StorageFull, StorageFull):
            break
        pushed.append(candidate)
    refused = images[len(pushed)]
    assert 0 < len(pushed) < len(images)
    await all_there(registry, pushed)
    make_room(disk)
    await push(registry, HOME, refused, "latest")
    await all_there(registry, [*pushed, refused])


@pytest.mark.parametrize("disk", [SHORTAGES[0]], indirect=True)
async def test_f8_many_pushers_on_a_full_disk(store: ObjectStore, disk: Path) -> None:
    """Of many pushes at once each is either taken whole or refused as full."""
    registry = await LocalRegistry.open(store)
    taken: list[Content] = []

    async def attempt(number: int) -> None:
        candidate = image(f"crowd-{number}", layers=1, size=200_000)
        with contextlib.suppress(storage.StorageFull, StorageFull):
            await push(registry, HOME, candidate)
            taken.append(candidate)

    await asyncio.gather(*map(attempt, range(40)))
    assert 0 < len(taken) < 40
    await all_there(registry, taken)


async def all_there(registry: Registry, images: list[Content]) -> None:
    """Every image is read back whole."""
    for one in images:
        assert await registry.read_manifest(HOME, one.digest) == one.manifest
        for part in one.blobs:
            assert await read_bytes(registry, HOME, part.digest) == part.content
