"""Big directories are remembered, and nobody ever sees one as it was before."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from moorage.storage_backends.base import UPLOADS, CommonPrefix, ObjectInfo
from moorage.storage_backends.crowds import Crowds
from moorage.storage_backends.filesystem import FilesystemStore

CROWD = 600
PREFIX = "tags/team!app/"
LONG_AGO = 1_700_000_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FilesystemStore]:
    """A store with a big directory that has settled."""
    store = await FilesystemStore.open(tmp_path / "root")
    async with store.batch():
        for number in range(CROWD):
            await store.put(f"{PREFIX}v{number:04d}", b"")
    _settle(tmp_path)
    yield store
    await store.close()


def _settle(tmp_path: Path) -> None:
    """Lets the directory look as if nothing had changed for long."""
    os.utime(tmp_path / "root" / PREFIX, (LONG_AGO, LONG_AGO))


async def _list(store: FilesystemStore, prefix: str = PREFIX, after: str = "") -> list[ObjectInfo | CommonPrefix]:
    return [entry async for entry in store.list(prefix, after=after)]


async def _keys(store: FilesystemStore, prefix: str = PREFIX, after: str = "") -> list[str]:
    return [entry.key for entry in await _list(store, prefix, after) if isinstance(entry, ObjectInfo)]


async def test_a_remembered_listing_is_the_listing(store: FilesystemStore, tmp_path: Path) -> None:
    """What is remembered equals what another store, which remembers nothing, reads."""
    first, again = await _list(store), await _list(store)
    other = await FilesystemStore.open(tmp_path / "root")
    assert first == again == await _list(other)
    assert len(again) == CROWD
    await other.close()


async def test_it_is_read_once(store: FilesystemStore, tmp_path: Path) -> None:
    """The second listing reads no entry: it shows one that nobody announced by changing the directory's time."""
    await _list(store)
    intruder = tmp_path / "root" / PREFIX / "intruder"
    intruder.touch()
    _settle(tmp_path)
    assert f"{PREFIX}intruder" not in await _keys(store)


@pytest.mark.parametrize(
    "from_elsewhere", [pytest.param(False, id="by us"), pytest.param(True, id="by another process")]
)
async def test_a_change_shows_at_once(store: FilesystemStore, tmp_path: Path, *, from_elsewhere: bool) -> None:
    """M9: what came, went or was replaced after a listing is in the next one."""
    writer = await FilesystemStore.open(tmp_path / "root") if from_elsewhere else store
    before = {entry.key: entry for entry in await _list(store) if isinstance(entry, ObjectInfo)}
    await writer.delete(f"{PREFIX}v0003")
    assert f"{PREFIX}v0003" not in await _keys(store)
    _settle(tmp_path)
    await _list(store)
    await writer.put(f"{PREFIX}v0004", b"replaced")
    after = {entry.key: entry for entry in await _list(store) if isinstance(entry, ObjectInfo)}
    assert after[f"{PREFIX}v0004"].size == len(b"replaced")
    assert after[f"{PREFIX}v0004"].version != before[f"{PREFIX}v0004"].version
    _settle(tmp_path)
    await _list(store)
    await writer.put(f"{PREFIX}new", b"")
    assert f"{PREFIX}new" in await _keys(store)
    if from_elsewhere:
        await writer.close()


async def test_paging_and_prefixes(store: FilesystemStore) -> None:
    """``after`` and a prefix in the middle of a name hold for what is remembered too."""
    everything = await _keys(store)
    for after in random.Random(5).sample(everything, 20):
        assert [key for key in everything if key > after] == await _keys(store, after=after)
    assert [key for key in everything if key.startswith(f"{PREFIX}v03")] == await _keys(store, f"{PREFIX}v03")
    assert await _keys(store, after=f"{PREFIX}zzz") == []


async def test_a_directory_in_motion_is_not_remembered(tmp_path: Path) -> None:
    """A directory that changed a moment ago could change again within one tick of its clock."""
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "a").touch()
    crowds = Crowds(f"{tmp_path}/")
    assert [entry.key for entry in crowds.read("busy/") or []] == ["busy/a"]
    assert crowds.unchanged("busy/") is None


async def test_what_is_not_only_objects_is_not_remembered(tmp_path: Path) -> None:
    """Directories may change below without a trace above; upload records change in their place."""
    for name in ("mixed/inner", UPLOADS):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a").touch()
    (tmp_path / "mixed" / "b").touch()
    for name in ("mixed", UPLOADS):
        os.utime(tmp_path / name, (LONG_AGO, LONG_AGO))
    crowds = Crowds(f"{tmp_path}/")
    assert crowds.read("mixed/") is None
    assert [entry.key for entry in crowds.read(UPLOADS) or []] == [f"{UPLOADS}a"]
    assert crowds.unchanged("mixed/") is None
    assert crowds.unchanged(UPLOADS) is None
