"""Uploads that end badly leave nothing behind: no part that is paid for, no piece, no record."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import pytest
from moorage.registry.oci import RepositoryName
from moorage.registry.store import LocalRegistry
from moorage.storage_backends.base import UPLOADS, ObjectInfo, ObjectStore
from moorage.storage_backends.errors import StorageUnavailable
from moorage.storage_backends.s3 import Location, S3Store

from tests.content import chunked
from tests.faultproxy import FINE, Fault, FaultProxy, Scene
from tests.s3.servers import S3Server
from tests.s3.uploaded import CONTENT, CUTS
from tests.suites.store_content import MIB, chunks, content, noted, upload_of

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, its credentials in our environment."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
async def store(environment: S3Server, bucket: str) -> AsyncIterator[S3Store]:
    """A store over a bucket that nobody else uses."""
    store = await S3Store.open(Location.parse(environment.url(environment.bucket(), "registry")))
    yield store
    await store.close()


def bucket_of(store: S3Store) -> str:
    """The bucket of a store."""
    return Location.parse(repr(store).removeprefix("<S3Store ").partition(" ")[0].rstrip(">")).bucket


async def everything(store: ObjectStore) -> list[str]:
    """Every key, records and pieces too."""
    return [entry.key async for entry in store.list("") if isinstance(entry, ObjectInfo)]


def multiparts(server: S3Server, bucket: str, key: str) -> list[str]:
    """Ids of multipart uploads to ``key``: the exact key, because MinIO lists nothing else."""
    answer = server.client().list_multipart_uploads(Bucket=bucket, Prefix=f"registry/{key}")
    return [one["UploadId"] for one in answer.get("Uploads", ())]


async def test_expiry_leaves_nothing(environment: S3Server, store: S3Store) -> None:
    """Sessions with nothing, with bytes in the record, with a tail, with parts, and with a commit that broke off: after
    their time they are gone, with all that S3 held of them."""
    registry = await LocalRegistry.open(store)
    before = await everything(store)
    name = RepositoryName.parse("team/app")
    for size in (0, 5, 50_000, 13 * MIB):
        session = await registry.start_upload(name)
        if size:
            await registry.append_upload(name, session.id, chunked(os.urandom(size), 65_536))
    keys = [info.key for info in [await store.stat_upload(upload) for upload in await open_uploads(store)]]
    assert len([key for key in keys if multiparts(environment, bucket_of(store), key)]) == 1
    assert await registry.expire_uploads(3600) == 0
    assert len(await open_uploads(store)) == 4
    assert await registry.expire_uploads(-3600) == 4
    assert await everything(store) == before
    assert [multiparts(environment, bucket_of(store), key) for key in keys] == [[]] * 4


async def open_uploads(store: ObjectStore) -> list[str]:
    """Ids of uploads that have a record."""
    return [entry.key.removeprefix(UPLOADS) async for entry in store.list(UPLOADS) if isinstance(entry, ObjectInfo)]


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
async def test_a_death_at_any_moment(environment: S3Server, cut: int) -> None:
    """The process dies when S3 has carried out its n-th request, for every n. Expiry then leaves either nothing or the
    whole object, whose commit was over."""
    bucket, key, outcomes = environment.bucket(), "data/x", []
    place = urlsplit(environment.endpoint)
    direct = S3Store(Location.parse(environment.url(bucket, "registry")))
    with FaultProxy(str(place.hostname), place.port or 80) as line:
        through = environment.url(bucket, "registry").replace(environment.endpoint, line.endpoint)
        for number in range(1000):
            was_killed = await asyncio.to_thread(_push_and_die, line, through, key, cut, number)
            for upload in await open_uploads(direct):
                await direct.abort_upload(upload)
            left = await everything(direct)
            assert left in ([], [key]), f"after {number} answers"
            assert multiparts(environment, bucket, key) == [], f"after {number} answers"
            if left:
                assert await content(direct, key) == CONTENT
                await direct.delete(key)
            outcomes.append(bool(left))
            if not was_killed:
                break
    await direct.close()
    assert outcomes.count(False) > 5
    assert outcomes[-1]


def _push_and_die(line: FaultProxy, location: str, key: str, cut: int, number: int) -> bool:
    """Whether it died before its end."""
    lock, answers = threading.Lock(), 0
    process = subprocess.Popen([sys.executable, "-m", "tests.s3.pusher", location, key, str(cut)])

    def dies(scene: Scene) -> bool:
        nonlocal answers
        with lock:
            answers += scene.answers and scene.first
            if answers > number:
                process.kill()
            return answers > number

    line.fault = Fault(when=dies, swallow=True)
    status = process.wait(120)
    line.fault = FINE
    assert status in (0, -signal.SIGKILL)
    return status != 0


async def test_a_writer_who_outlived_his_upload(environment: S3Server, store: S3Store) -> None:
    """Bytes that arrive while the upload is aborted are dropped with their multipart upload."""
    upload = await upload_of(store, "data/y", b"123")
    begun = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * (12 * MIB)
        begun.set()
        await asyncio.sleep(0)
        while await open_uploads(store):  # noqa: ASYNC110  # the store sends no event
            await asyncio.sleep(0.01)
        yield b"too late"

    append = asyncio.create_task(store.append_upload(upload, 3, slow(), noted()))
    await begun.wait()
    await store.abort_upload(upload)
    await asyncio.gather(append, return_exceptions=True)
    assert append.exception() is not None
    assert multiparts(environment, bucket_of(store), "data/y") == []
    assert await everything(store) == []


async def test_a_lost_put_that_was_replaced_is_no_lost_race(environment: S3Server) -> None:
    """A conditional put wins, its answer is lost, and somebody replaces the value before we look: to say "conflict"
    would be a lie, and who believed it would write twice. The consistency trial found this."""
    bucket = environment.bucket()
    place = urlsplit(environment.endpoint)
    client = environment.client()
    with FaultProxy(str(place.hostname), place.port or 80) as line:
        store = await S3Store.open(
            Location.parse(environment.url(bucket, "registry").replace(environment.endpoint, line.endpoint))
        )
        version = await store.put("tag", b"first")

        def replaced(scene: Scene) -> bool:
            if not (scene.answers and scene.first and scene.head.startswith(b"PUT")):
                return False
            client.put_object(Bucket=bucket, Key="registry/tag", Body=b"theirs")
            line.fault = FINE
            return True

        line.fault = Fault(when=replaced, reset=0)
        with pytest.raises(StorageUnavailable):
            await store.put("tag", b"ours", expect=version)
        assert await content(store, "tag") == b"theirs"
        await store.close()


async def test_a_lost_put_that_stands_is_ours(environment: S3Server) -> None:
    """The same, but nobody came between: it is found, and no second one is made."""
    bucket = environment.bucket()
    place = urlsplit(environment.endpoint)
    with FaultProxy(str(place.hostname), place.port or 80) as line:
        store = await S3Store.open(
            Location.parse(environment.url(bucket, "registry").replace(environment.endpoint, line.endpoint))
        )
        version = await store.put("tag", b"first")
        once = iter([True])

        def lost(scene: Scene) -> bool:
            return scene.answers and scene.first and scene.head.startswith(b"PUT") and next(once, False)

        line.fault = Fault(when=lost, reset=0)
        second = await store.put("tag", b"ours", expect=version)
        assert (await store.stat("tag")).version == second
        await store.close()


async def test_old_pieces_of_nobody_are_swept_at_start(
    environment: S3Server, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece whose upload is long over goes; those of open uploads stay, and so do young ones."""
    upload = await upload_of(store, "data/z", b"123")
    await store.put(f"tails/{'0' * 32}.1", b"nobody's")
    location = Location.parse(environment.url(bucket_of(store), "registry"))
    await (await S3Store.open(location)).close()
    assert f"tails/{'0' * 32}.1" in await everything(store)
    monkeypatch.setattr("moorage.storage_backends.s3.store._ORPHANED", -3600.0)
    await (await S3Store.open(location)).close()
    assert f"tails/{'0' * 32}.1" not in await everything(store)
    await store.append_upload(upload, 3, chunks(b"4"), noted())
    await store.commit_upload(upload, 4)
    assert await content(store, "data/z") == b"1234"


async def test_a_bad_line_does_not_speak_against_the_server(environment: S3Server) -> None:
    """Every answer to the n-th request of the probe is lost once, for every n: the store starts all the same, and the
    probe leaves nothing behind."""
    bucket = environment.bucket()
    place = urlsplit(environment.endpoint)
    with FaultProxy(str(place.hostname), place.port or 80) as line:
        location = Location.parse(environment.url(bucket, "registry").replace(environment.endpoint, line.endpoint))
        for number in itertools.count():
            answers = itertools.count()
            lost = threading.Event()

            def is_lost(scene: Scene, answers: Iterator[int] = answers, lost: threading.Event = lost) -> bool:
                if not (scene.answers and scene.first) or next(answers) != number:  # noqa: B023  # used in this turn
                    return False
                lost.set()
                return True

            line.fault = Fault(when=is_lost, reset=0)
            await (await S3Store.open(location)).close()
            if not lost.is_set():
                break
        line.fault = FINE
    assert number > 10
    assert environment.keys(bucket) == []
    assert environment.open_multiparts(bucket) == []
