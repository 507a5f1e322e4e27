"""Requests that race each other: one order or the other, never a mixture."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from moorage.registry.oci import Digest, Registry
from moorage.registry.store import LocalRegistry
from moorage.storage_backends.base import ObjectStore
from moorage.storage_backends.filesystem import FilesystemStore
from moorage.storage_backends.memory import MemoryStore

from tests.content import blob, image, push_blobs, repository
from tests.stage import ON_STAGE
from tests.wire.talk import NAME, put_manifest, start

pytestmark = ON_STAGE

_HERE = repository(NAME)


@pytest_asyncio.fixture(loop_scope="session", params=["memory", "directory"])
async def local(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry over each kind of store."""
    directory = request.param == "directory"
    store: ObjectStore = await FilesystemStore.open(tmp_path / "root") if directory else MemoryStore()
    yield await LocalRegistry.open(store)
    await store.close()


@pytest.mark.parametrize("batch", range(5))
async def test_a16_a_late_patch_never_changes_what_was_sealed(
    wire: httpx.AsyncClient, request: pytest.FixtureRequest, batch: int
) -> None:
    """Rule A16: PATCH against closing PUT, 1,000 times; whichever wins, stored bytes hash to their digest."""
    dice = random.Random(batch)
    for number in range(40 if "directory" in request.node.name else 160):  # every commit of a directory is an fsync
        head, tail = blob((batch, number), 2000).content, blob((number, batch), 2000).content
        location = await start(wire)
        assert (await wire.patch(location, content=head)).status_code == 202
        digest, longer = Digest.of(head), Digest.of(head + tail)
        racers = [
            wire.put(f"{location}?digest={dice.choice([digest, longer])}"),
            wire.patch(location, content=tail, headers={"content-range": "2000-3999"}),
            wire.put(f"{location}?digest={digest}", content=tail, headers={"content-range": "2000-3999"}),
        ]
        dice.shuffle(racers)
        statuses = [response.status_code for response in await asyncio.gather(*racers)]
        assert all(status in (201, 202, 400, 404, 416) for status in statuses), statuses
        assert statuses.count(201) <= 1
        for wanted, content in ((digest, head), (longer, head + tail)):
            response = await wire.get(f"/v2/{NAME}/blobs/{wanted}")
            assert response.status_code == 404 or response.content == content


async def test_a_tag_under_concurrent_writers_names_one_of_them(wire: httpx.AsyncClient, local: Registry) -> None:
    """Promise M4: readers see one of the values, never none and never a torn one."""
    contents = {str(image(number).digest): image(number) for number in range(6)}
    for content in contents.values():
        await push_blobs(local, _HERE, content.blobs)
    await put_manifest(wire, image(0), "busy")
    seen: set[str] = set()

    async def write() -> None:
        for content in contents.values():
            assert (await put_manifest(wire, content, "busy")).status_code == 201

    async def read() -> None:
        for _ in range(30):
            response = await wire.get(f"/v2/{NAME}/manifests/busy")
            assert response.status_code == 200
            digest = response.headers["docker-content-digest"]
            assert response.content == contents[digest].manifest.content
            seen.add(digest)

    async with asyncio.TaskGroup() as group:
        for task in (write, write, read, read):
            group.create_task(task())
    assert seen <= set(contents)


async def test_s2_parallel_tags_are_all_there(wire: httpx.AsyncClient, local: Registry) -> None:
    """Rule S2: 64 tags pushed at once; each 201 is in the list."""
    await push_blobs(local, _HERE, image("many").blobs)
    names = sorted(f"t{number:02}" for number in range(64))
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(put_manifest(wire, image("many"), name))
    listed = (await wire.get(f"/v2/{NAME}/tags/list")).json()["tags"]
    assert set(names) <= set(listed)


async def test_the_same_layer_pushed_by_many_at_once(wire: httpx.AsyncClient) -> None:
    """Every pusher gets 201, and the blob is right."""
    item = blob("popular", 100_000)
    pushes = [wire.post(f"/v2/{NAME}/blobs/uploads/?digest={item.digest}", content=item.content) for _ in range(16)]
    assert {response.status_code for response in await asyncio.gather(*pushes)} == {201}
    assert (await wire.get(f"/v2/{NAME}/blobs/{item.digest}")).content == item.content


async def test_delete_against_put_of_a_manifest(wire: httpx.AsyncClient, local: Registry) -> None:
    """Either it is there with its tag, or neither is."""
    content = image("contested")
    await push_blobs(local, _HERE, content.blobs)
    for _ in range(30):
        put, delete = await asyncio.gather(
            put_manifest(wire, content, "contested"), wire.delete(f"/v2/{NAME}/manifests/{content.digest}")
        )
        assert put.status_code == 201
        assert delete.status_code in (202, 404)
        by_tag = await wire.get(f"/v2/{NAME}/manifests/contested")
        by_digest = await wire.get(f"/v2/{NAME}/manifests/{content.digest}")
        listed = (await wire.get(f"/v2/{NAME}/tags/list")).json()["tags"]
        assert by_tag.status_code == (200 if "contested" in listed else 404)
        assert by_digest.status_code == 200 or by_tag.status_code == 404
