"""Parts on their way to S3: two at once, in the memory of two, and only what came before a failure counts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from moorage.storage_backends.errors import StorageUnavailable
from moorage.storage_backends.s3 import Location, S3Store
from moorage.storage_backends.s3.multipart import Multipart
from moorage.storage_backends.s3.record import INLINE, PART, Part

from tests.content import chunked
from tests.s3.servers import S3Server
from tests.suites.store_content import MIB, content, noted, upload_of

_WHOLE = os.urandom(4 * PART)

Send = Callable[..., Awaitable[Part]]


@pytest.fixture
async def store(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Store]:
    """A store over a bucket that nobody else uses."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    store = await S3Store.open(Location.parse(server.url(server.bucket(), "registry")))
    yield store
    await store.close()


class _Line:
    """The way of parts to S3, from which ``before`` and ``after`` keep them. ``open``: numbers of those on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arrived: list[int] = []
        self.most = 0
        self._open: set[int] = set()
        self._send: Send = Multipart.send
        monkeypatch.setattr(Multipart, "send", lambda *arguments: self._pass(*arguments))

    async def enter(self, number: int) -> None:
        """Before a part is sent."""

    async def leave(self, number: int) -> None:
        """Before its answer is heard."""

    async def _pass(self, multipart: Multipart, key: str, upload: str, number: int, data: Any) -> Part:
        self._open.add(number)
        self.most = max(self.most, len(self._open))
        try:
            await self.enter(number)
            part = await self._send(multipart, key, upload, number, data)
            await self.leave(number)
        finally:
            self._open.remove(number)
        self.arrived.append(number)
        return part


class _Pairs(_Line):
    """Nobody goes alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self._pair = asyncio.Barrier(2)

    async def enter(self, number: int) -> None:
        await self._pair.wait()


class _Losing(_Line):
    """One part is lost, once the part behind it has arrived or while the one before it is still on its way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lost: int, how: BaseException) -> None:
        super().__init__(monkeypatch)
        self._lost, self._how = lost, how
        self._is_lost, self._is_passed = asyncio.Event(), asyncio.Event()

    async def enter(self, number: int) -> None:
        if number == self._lost and not self._is_lost.is_set():
            if number == 1:
                await self._is_passed.wait()
            self._is_lost.set()
            raise self._how

    async def leave(self, number: int) -> None:
        if number > self._lost:
            self._is_passed.set()
        if number == self._lost - 1:
            await self._is_lost.wait()


async def test_two_parts_are_on_their_way_at_once(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never one alone, never three, and what was taken from the client and not sent is never more than two parts."""
    line, taken = _Pairs(monkeypatch), 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal taken
        async for chunk in chunked(_WHOLE, INLINE):
            assert taken - PART * len(line.arrived) <= 2 * PART
            taken += len(chunk)
            yield chunk

    upload = await upload_of(store, "data/x", b"")
    await store.append_upload(upload, 0, counted(), noted())
    await store.commit_upload(upload, len(_WHOLE))
    assert await content(store, "data/x") == _WHOLE
    assert line.most == 2


@pytest.mark.parametrize("before", [pytest.param(INLINE, id="record"), pytest.param(INLINE + 1, id="piece")])
@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_a_part_that_is_lost(store: S3Store, monkeypatch: pytest.MonkeyPatch, lost: int, before: int) -> None:
    """What came before it counts, what was sent behind it does not, and the upload goes on from there."""
    _Losing(monkeypatch, lost, StorageUnavailable("lost"))
    upload = await upload_of(store, "data/x", _WHOLE[:before])
    with pytest.raises(StorageUnavailable):
        await store.append_upload(upload, before, chunked(_WHOLE[before:], MIB), noted())
    offset = (await store.stat_upload(upload)).offset
    assert offset == ((lost - 1) * PART or before)
    await store.append_upload(upload, offset, chunked(_WHOLE[offset:], MIB), noted())
    await store.commit_upload(upload, len(_WHOLE))
    assert await content(store, "data/x") == _WHOLE


async def test_a_part_that_is_cancelled(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it happens to every task when a worker ends: the part behind it, which has arrived, does not count."""
    _Losing(monkeypatch, 1, asyncio.CancelledError())
    upload = await upload_of(store, "data/x", b"")
    with pytest.raises(asyncio.CancelledError):
        await store.append_upload(upload, 0, chunked(_WHOLE, MIB), noted())
    assert (await store.stat_upload(upload)).offset == 0
    await store.abort_upload(upload)


_USUAL = PART + 5 * MIB


async def test_the_usual_client_waits_for_no_bytes_at_the_end(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """He sends all at once and closes: what is left behind the last full part is a part already."""
    line = _Line(monkeypatch)
    upload = await upload_of(store, "data/x", b"")
    await store.append_upload(upload, 0, chunked(_WHOLE[:_USUAL], MIB), noted())
    assert sorted(line.arrived) == [1, 2]
    await store.commit_upload(upload, _USUAL)
    assert len(line.arrived) == 2
    assert await content(store, "data/x") == _WHOLE[:_USUAL]


@pytest.mark.parametrize("first", [pytest.param(5 * MIB, id="no part yet"), pytest.param(_USUAL, id="a part")])
async def test_who_goes_on_after_the_likely_end(store: S3Store, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """The part that would have been the last is never used, nor is its number."""
    line = _Line(monkeypatch)
    upload = await upload_of(store, "data/x", b"")
    for start, stop in ((0, first), (first, first + 7), (first + 7, len(_WHOLE) - 5)):
        await store.append_upload(upload, start, chunked(_WHOLE[start:stop], MIB), noted())
    await store.commit_upload(upload, len(_WHOLE) - 5)
    assert await content(store, "data/x") == _WHOLE[:-5]
    assert len(line.arrived) == len(set(line.arrived)) == 5


async def test_a_likely_end_that_is_lost(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not matter: the bytes are kept as a piece, and are sent when the upload is closed."""
    line = _Losing(monkeypatch, 2, StorageUnavailable("lost"))
    upload = await upload_of(store, "data/x", b"")
    await store.append_upload(upload, 0, chunked(_WHOLE[:_USUAL], MIB), noted())
    assert line.arrived == [1]
    await store.commit_upload(upload, _USUAL)
    assert len(line.arrived) == 2
    assert await content(store, "data/x") == _WHOLE[:_USUAL]


async def test_what_broke_off_has_no_likely_end(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client who vanished will go on from there, if he comes back."""
    line = _Line(monkeypatch)

    async def broken() -> AsyncIterator[bytes]:
        async for chunk in chunked(_WHOLE[:_USUAL], MIB):
            yield chunk
        raise ConnectionError

    upload = await upload_of(store, "data/x", b"")
    with pytest.raises(ConnectionError):
        await store.append_upload(upload, 0, broken(), noted())
    assert line.arrived == [1]
    await store.commit_upload(upload, _USUAL)
    assert await content(store, "data/x") == _WHOLE[:_USUAL]


async def test_a_place_that_was_not_made_ready(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first part makes it, so an outage of a moment costs nothing."""
    create, asked = Multipart.create, 0

    async def failing(multipart: Multipart, key: str) -> tuple[str, bool]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise StorageUnavailable("a moment")
        return await create(multipart, key)

    monkeypatch.setattr(Multipart, "create", failing)
    upload = await upload_of(store, "data/x", b"")
    await store.append_upload(upload, 0, chunked(_WHOLE[:_USUAL], MIB), noted())
    await store.commit_upload(upload, _USUAL)
    assert asked == 2
    assert await content(store, "data/x") == _WHOLE[:_USUAL]


async def test_a_place_made_ready_for_nothing(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever breaks off before a part is full leaves a multipart upload that the record knows."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = server.bucket()
    store = await S3Store.open(Location.parse(server.url(bucket, "registry")))

    async def broken() -> AsyncIterator[bytes]:
        yield _WHOLE[: 5 * MIB]
        raise ConnectionError

    def multiparts() -> int:
        # Of the exact key, because MinIO lists nothing else.
        return len(server.client().list_multipart_uploads(Bucket=bucket, Prefix="registry/data/x").get("Uploads", ()))

    upload = await upload_of(store, "data/x", b"")
    with pytest.raises(ConnectionError):
        await store.append_upload(upload, 0, broken(), noted())
    assert (await store.stat_upload(upload)).offset == 5 * MIB
    assert multiparts() == 1
    await store.abort_upload(upload)
    assert multiparts() == 0
    await store.close()


async def test_an_append_that_goes_on_is_not_abandoned(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that arrive renew the record, by whose time sessions are dropped, however few they are."""
    monkeypatch.setattr("moorage.storage_backends.s3.writer._RENEWAL", 0.0)
    upload = await upload_of(store, "data/x", b"")
    began = (await store.stat_upload(upload)).modified
    renewed = False

    async def slow() -> AsyncIterator[bytes]:
        nonlocal renewed
        for _ in range(100):  # ten seconds at least, and the store's clock has a grain of one
            await asyncio.sleep(0.1)
            yield b"x"
            if renewed := (await store.stat_upload(upload)).modified > began:
                return

    await store.append_upload(upload, 0, slow(), noted())
    assert renewed
