"""What every store does with uploads: offsets, notes, two writers at once, the end of an upload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from moorage.storage_backends.base import UPLOADS, ObjectInfo, ObjectStore
from moorage.storage_backends.errors import KeyInvalid, KeyNotFound, OffsetMismatch, UploadNotFound

from tests.suites.store_content import MIB, chunks, content, listing, noted, outcome, slowly, upload_of


class UploadRules:
    """Bytes gather unseen and appear with the commit; offset and note change together."""

    TICK = 0.01
    """Seconds after which the store's clock has certainly moved."""

    async def test_upload(self, store: ObjectStore) -> None:
        """Bytes gather over several appends, unseen, and appear at the key with the commit."""
        upload = await store.create_upload("data/x", b"begun")
        info = await store.stat_upload(upload)
        assert (info.key, info.offset, info.note) == ("data/x", 0, b"begun")
        info = await store.append_upload(upload, 0, chunks(b"ab", b"", b"cd"), noted())
        assert (info.key, info.offset, info.note) == ("data/x", 4, b"note@4")
        info = await store.append_upload(upload, 4, chunks(b"ef"), noted())
        found = await store.stat_upload(upload)
        assert (found.key, found.offset, found.note) == (info.key, 6, b"note@6") == (info.key, info.offset, info.note)
        assert found.modified == pytest.approx(info.modified, abs=self.TICK)
        with pytest.raises(KeyNotFound):
            await store.stat("data/x")
        committed, stored = await store.commit_upload(upload, 6), await store.stat("data/x")
        assert (committed.key, committed.size, committed.version) == ("data/x", 6, stored.version)
        assert stored.modified == pytest.approx(committed.modified, abs=self.TICK)
        assert await content(store, "data/x") == b"abcdef"

    @pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, MIB, 5 * MIB + 3])
    async def test_upload_of_any_size(self, store: ObjectStore, size: int) -> None:
        """Also nothing at all, and more than fits a buffer."""
        data = bytes(range(251)) * (size // 251 + 1)
        upload = await store.create_upload("a", b"")
        parts = (data[i : min(i + 70_001, size)] for i in range(0, size, 70_001))
        await store.append_upload(upload, 0, chunks(*parts), noted())
        await store.commit_upload(upload, size)
        assert await content(store, "a") == data[:size]

    async def test_upload_in_crumbs(self, store: ObjectStore) -> None:
        """Thousands of tiny chunks are as good as one."""
        upload = await store.create_upload("a", b"")
        await store.append_upload(upload, 0, chunks(*[b"%03d" % (i % 1000) for i in range(5000)]), noted())
        await store.commit_upload(upload, 15_000)
        assert await content(store, "a") == b"".join(b"%03d" % (i % 1000) for i in range(5000))

    @pytest.mark.parametrize("offset", [0, 1, 2, 4, 99])
    async def test_append_at_another_offset(self, store: ObjectStore, offset: int) -> None:
        """An append that skips or repeats bytes is refused, says where the upload stands, and changes nothing."""
        upload = await upload_of(store, "a", b"123")
        with pytest.raises(OffsetMismatch) as caught:
            await store.append_upload(upload, offset, chunks(b"x"), noted(b"bad"))
        assert caught.value.offset == 3
        with pytest.raises(OffsetMismatch):
            await store.commit_upload(upload, offset)
        assert (await store.stat_upload(upload)).note == b"note@3"
        await store.commit_upload(upload, 3)
        assert await content(store, "a") == b"123"

    async def test_data_that_raises_keeps_what_arrived(self, store: ObjectStore) -> None:
        """When the sender goes away what arrived is kept and noted, and the upload goes on from there."""

        async def broken() -> AsyncIterator[bytes]:
            yield b"4"
            yield b"56"
            raise ConnectionResetError("gone")

        upload = await upload_of(store, "a", b"123")
        with pytest.raises(ConnectionResetError):
            await store.append_upload(upload, 3, broken(), noted())
        info = await store.stat_upload(upload)
        assert (info.offset, info.note) == (6, b"note@6")
        await store.append_upload(upload, 6, chunks(b"7"), noted())
        await store.commit_upload(upload, 7)
        assert await content(store, "a") == b"1234567"

    @pytest.mark.parametrize("size", [5, 3 * MIB])
    async def test_a_cancelled_append_keeps_what_arrived(self, store: ObjectStore, size: int) -> None:
        """When the server stops an append what arrived is kept, and the upload is free again."""
        started = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield b"x" * (size // 5)
            started.set()
            await asyncio.Event().wait()

        upload = await store.create_upload("a", b"")
        append = asyncio.create_task(store.append_upload(upload, 0, endless(), noted()))
        await started.wait()
        append.cancel()
        with pytest.raises(asyncio.CancelledError):
            await append
        arrived = size // 5 * 5
        assert (await store.stat_upload(upload)).offset == arrived
        await store.commit_upload(upload, arrived)
        assert await content(store, "a") == b"x" * arrived

    async def test_two_appenders(self, store: ObjectStore) -> None:
        """Of several appends at one offset exactly one is taken, whole."""
        upload = await upload_of(store, "a", b"-")
        appends = [store.append_upload(upload, 1, slowly(b"%d" % i * 4), noted()) for i in range(4)]
        results = await asyncio.gather(*map(outcome, appends))
        winners = [i for i, r in enumerate(results) if r is not OffsetMismatch]
        assert len(winners) == 1
        await store.commit_upload(upload, 5)
        assert await content(store, "a") == b"-" + b"%d" % winners[0] * 4

    async def test_commit_and_append_race(self, store: ObjectStore) -> None:
        """Either the append or the commit is too late, and committed bytes never change."""
        for i in range(20):
            upload = await upload_of(store, f"a/{i}", b"123")
            race = (store.append_upload(upload, 3, slowly(b"456"), noted()), store.commit_upload(upload, 3))
            appended, committed = await asyncio.gather(*map(outcome, race if i % 2 else race[::-1]))
            if not i % 2:
                appended, committed = committed, appended
            assert (appended in (UploadNotFound, OffsetMismatch)) != (committed is OffsetMismatch)
            if committed is OffsetMismatch:
                await store.commit_upload(upload, 6)
            assert await content(store, f"a/{i}") == (b"123456" if committed is OffsetMismatch else b"123")

    async def test_several_committers(self, store: ObjectStore) -> None:
        """Exactly one commits; to the others the upload is gone."""
        upload = await upload_of(store, "a", b"123")
        results = await asyncio.gather(*[outcome(store.commit_upload(upload, 3)) for _ in range(8)])
        assert results.count(UploadNotFound) == 7
        assert await content(store, "a") == b"123"

    async def test_a_finished_upload_is_gone(self, store: ObjectStore) -> None:
        """After commit or abort nothing can be done with the upload, and the bytes stay as they are."""
        done, dropped = await upload_of(store, "a", b"123"), await upload_of(store, "b", b"123")
        await store.commit_upload(done, 3)
        await store.abort_upload(dropped)
        for upload in (done, dropped, "0" * 32, "../../etc/passwd", ""):
            for offset in (0, 3):
                assert await outcome(store.append_upload(upload, offset, chunks(b"x"), noted())) is UploadNotFound
                assert await outcome(store.commit_upload(upload, offset)) is UploadNotFound
            assert await outcome(store.stat_upload(upload)) is UploadNotFound
        assert await listing(store) == ["a"]
        assert await content(store, "a") == b"123"

    async def test_abort_is_idempotent(self, store: ObjectStore) -> None:
        """Aborting again, or after the commit, changes nothing."""
        upload = await upload_of(store, "a", b"123")
        await store.commit_upload(upload, 3)
        for aborted in (upload, upload, "0" * 32, "../a", ""):
            await store.abort_upload(aborted)
        assert await content(store, "a") == b"123"

    async def test_abort_while_bytes_arrive(self, store: ObjectStore) -> None:
        """An append that is under way when the upload is aborted does not bring it back."""
        upload = await store.create_upload("a", b"")
        gate = asyncio.Event()

        async def gated() -> AsyncIterator[bytes]:
            yield b"123"
            await gate.wait()

        append = asyncio.create_task(store.append_upload(upload, 0, gated(), noted()))
        await asyncio.sleep(0.01)
        await store.abort_upload(upload)
        gate.set()
        assert await outcome(append) is UploadNotFound
        assert await outcome(store.stat_upload(upload)) is UploadNotFound
        assert await listing(store) == []

    async def test_uploads_are_listed(self, store: ObjectStore) -> None:
        """Who expires uploads finds them in a list, with the time of their last progress."""
        idle, busy = await store.create_upload("a", b""), await store.create_upload("b", b"")
        await asyncio.sleep(self.TICK)
        progress = await store.append_upload(busy, 0, chunks(b"x"), noted())
        times = {e.key: e.modified async for e in store.list(UPLOADS) if isinstance(e, ObjectInfo)}
        assert times.keys() == {UPLOADS + idle, UPLOADS + busy}
        assert times[UPLOADS + idle] < times[UPLOADS + busy]
        assert progress.modified == pytest.approx(times[UPLOADS + busy], abs=self.TICK)

    async def test_only_uploads_write_their_records(self, store: ObjectStore) -> None:
        """Nobody else puts, copies or deletes under ``uploads/``."""
        upload = await upload_of(store, "a", b"123")
        await store.put("b", b"")
        attempts = (
            store.put("uploads", b""),
            store.put(UPLOADS + upload, b""),
            store.copy("b", UPLOADS + upload),
            store.delete(UPLOADS + upload),
        )
        assert [await outcome(attempt) for attempt in attempts] == [KeyInvalid] * 4
        assert (await store.stat_upload(upload)).offset == 3

    async def test_a_commit_replaces(self, store: ObjectStore) -> None:
        """An object that is already at the key is replaced, whole."""
        old = await store.put("a", b"old")
        upload = await upload_of(store, "a", b"new")
        assert (await store.commit_upload(upload, 3)).version != old
        assert await content(store, "a") == b"new"

    async def test_an_append_of_nothing_still_notes(self, store: ObjectStore) -> None:
        """The note may change without a byte."""
        upload = await upload_of(store, "a", b"123")
        await store.append_upload(upload, 3, chunks(), noted(b"again"))
        assert (await store.stat_upload(upload)).note == b"again@3"

    async def test_presign_may_say_no(self, store: ObjectStore) -> None:
        """A store either gives a URL or says that it must serve the object itself."""
        await store.put("a", b"")
        url = await store.presign("a", 60, headers={})
        assert url is None or url.startswith("http")
