"""What every store does with objects: put, read, compare and swap, copy, delete, batches, and keys it refuses."""

from __future__ import annotations

import asyncio
import os

import pytest
from moorage.storage_backends.base import ABSENT, ANY, Expect, ObjectStore, read_all
from moorage.storage_backends.errors import Conflict, KeyInvalid, KeyNotFound, StorageError

from tests.suites.store_content import MIB, content, fill, increment, listing, outcome


class ObjectRules:
    """Objects come and go at once and whole."""

    TICK = 0.01
    """Seconds after which the store's clock has certainly moved."""

    async def test_put_is_read_back(self, store: ObjectStore) -> None:
        """What was put is read, with its size and version."""
        version = await store.put("a/b", b"content")
        data, info = await read_all(store, "a/b")
        assert (data, info.key, info.size, info.version) == (b"content", "a/b", 7, version)
        assert await store.stat("a/b") == info

    @pytest.mark.parametrize("key", ["absent", "a", "a/b/c", "a/b/c/d"])
    async def test_absent_key(self, store: ObjectStore, key: str) -> None:
        """A key without an object is not found, be it above or below one or nowhere near."""
        await store.put("a/b", b"x")
        with pytest.raises(KeyNotFound):
            await store.stat(key)
        with pytest.raises(KeyNotFound):
            await content(store, key)

    async def test_empty_object(self, store: ObjectStore) -> None:
        """An object may be empty: it exists, has a version and no chunk."""
        version = await store.put("a", b"")
        async with store.read("a") as reading:
            assert [c async for c in reading] == []
            assert (reading.info.size, reading.info.version) == (0, version)

    @pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, MIB, MIB + 1, 3 * MIB + 17])
    async def test_sizes_around_every_chunk(self, store: ObjectStore, size: int) -> None:
        """Content of any size comes back whole, in chunks of at most 1 MiB."""
        data = bytes(range(251)) * (size // 251 + 1)
        await store.put("a", data[:size])
        async with store.read("a") as reading:
            parts = [c async for c in reading]
        assert b"".join(parts) == data[:size]
        assert all(0 < len(part) <= MIB for part in parts)

    @pytest.mark.parametrize(
        ("start", "stop"),
        [(0, None), (0, 0), (3, 7), (9, 10), (9, 99), (10, None), (11, None), (99, 200), (5, 5), (7, 3)],
    )
    async def test_ranges_are_half_open_and_cut(self, store: ObjectStore, start: int, stop: int | None) -> None:
        """A range reads as a slice does; the facts are those of the whole object."""
        await store.put("a", b"0123456789")
        async with store.read("a", start=start, stop=stop) as reading:
            assert b"".join([c async for c in reading]) == b"0123456789"[start:stop]
            assert reading.info.size == 10

    async def test_range_of_a_big_object(self, store: ObjectStore) -> None:
        """A range that spans chunks begins and ends where it was asked to."""
        data = bytes(i * 7 % 256 for i in range(4096)) * 1024
        await store.put("a", data)
        async with store.read("a", start=MIB - 5, stop=3 * MIB + 9) as reading:
            assert b"".join([c async for c in reading]) == data[MIB - 5 : 3 * MIB + 9]

    @pytest.mark.parametrize("size", [0, 10, 3 * MIB])
    async def test_a_file_holds_what_is_read(self, store: ObjectStore, size: int) -> None:
        """Where a reading offers a file for the kernel to send, the file has the bytes of the range."""
        data = bytes(range(256)) * (size // 256 + 1)
        await store.put("a", data[:size])
        async with store.read("a", start=5, stop=size - 3) as reading:
            span = reading.file()
            if span is not None:
                assert os.pread(span.fileno(), span.stop - span.start, span.start) == data[5 : size - 3]

    @pytest.mark.parametrize("size", [10, 3 * MIB])
    async def test_one_version_is_read_to_the_end(self, store: ObjectStore, size: int) -> None:
        """A reader that began sees the version it began with, though it is replaced and deleted meanwhile."""
        await store.put("a", b"1" * size)
        async with store.read("a") as reading:
            await store.put("a", b"2" * size)
            await store.delete("a")
            assert b"".join([c async for c in reading]) == b"1" * size

    async def test_a_reading_may_be_left_unread(self, store: ObjectStore) -> None:
        """Who opens an object need not read it, or not to the end."""
        await store.put("a", b"1" * 3 * MIB)
        async with store.read("a"):
            pass
        async with store.read("a") as reading:
            assert len(await anext(aiter(reading))) <= MIB

    async def test_every_write_is_a_new_version(self, store: ObjectStore) -> None:
        """Versions do not come back, though bytes are put, deleted and put as fast as it goes; the same bytes, too,
        unless versions are hashes of them."""
        versions = []
        for i in range(40):
            data = b"%d" % i if store.capabilities.versions_are_hashes else b"x" * (i % 2)
            versions.append(await store.put("a", data))
            if i % 4 == 3:
                await store.delete("a")
        assert len(set(versions)) == len(versions)

    async def test_modified_is_the_time_of_the_write(self, store: ObjectStore) -> None:
        """A later write is marked with a later time."""
        await store.put("a", b"1")
        await asyncio.sleep(self.TICK)
        await store.put("b", b"2")
        assert (await store.stat("a")).modified < (await store.stat("b")).modified

    async def test_a_batch_is_visible_in_order(self, store: ObjectStore) -> None:
        """Inside a batch every write is visible when it returns."""
        async with store.batch():
            await store.put("a", b"")
            assert await listing(store) == ["a"]
            version = await store.put("b", b"1")
            await store.put("b", b"2", expect=version)
            assert await content(store, "b") == b"2"
            await store.delete("a")
            assert await listing(store) == ["b"]
        assert await listing(store) == ["b"]

    async def test_a_batch_that_fails_keeps_what_was_written(self, store: ObjectStore) -> None:
        """A batch is no transaction: what was written before an error stays, and the error goes on."""
        batch = store.batch()
        with pytest.raises(KeyNotFound):  # noqa: PT012  # the block around the error is what is tested
            async with batch:
                await store.put("a", b"1")
                await store.stat("b")
        assert await content(store, "a") == b"1"

    async def test_batches_side_by_side_and_nested(self, store: ObjectStore) -> None:
        """Batches of several tasks, and a batch in a batch, do not disturb each other."""

        async def write(i: int) -> None:
            async with store.batch():
                await store.put(f"k/{i}/a", b"1")
                async with store.batch():
                    await store.put(f"k/{i}/b", b"")
                await store.put(f"k/{i}/c", b"3")

        await asyncio.gather(*map(write, range(8)))
        assert len(await listing(store, "k/")) == 24


class SwapRules:
    """Of several writers with the same expectation exactly one wins."""

    async def test_absent_refuses_what_exists(self, store: ObjectStore) -> None:
        """Creating what exists is a conflict and changes nothing."""
        await store.put("a", b"1", expect=ABSENT)
        for data in (b"2", b""):
            with pytest.raises(Conflict):
                await store.put("a", data, expect=ABSENT)
        assert await content(store, "a") == b"1"

    async def test_a_version_is_swapped_once(self, store: ObjectStore) -> None:
        """A version lets one write through; the next with the same is a conflict and changes nothing."""
        first = await store.put("a", b"1")
        second = await store.put("a", b"2", expect=first)
        for data in (b"3", b""):
            with pytest.raises(Conflict):
                await store.put("a", data, expect=first)
        assert (await read_all(store, "a"))[0] == b"2"
        assert (await store.stat("a")).version == second

    async def test_a_version_of_nothing(self, store: ObjectStore) -> None:
        """Where nothing is, no version can be swapped."""
        version = await store.put("a", b"1")
        await store.delete("a")
        with pytest.raises(Conflict):
            await store.put("a", b"2", expect=version)
        with pytest.raises(KeyNotFound):
            await store.stat("a")

    @pytest.mark.parametrize("data", [b"", b"value"], ids=["empty", "content"])
    async def test_one_creator_wins(self, store: ObjectStore, data: bytes) -> None:
        """Of many creators at once exactly one wins, and his value stands."""
        results = await asyncio.gather(*[outcome(store.put("a/b/c", data, expect=ABSENT)) for _ in range(16)])
        winners = [r for r in results if r is not Conflict]
        assert len(winners) == 1
        assert (await store.stat("a/b/c")).version == winners[0]

    async def test_one_swapper_wins(self, store: ObjectStore) -> None:
        """Of many that swap one version exactly one wins, and his value stands."""
        version = await store.put("a", b"start")
        swaps = [store.put("a", b"%d" % i, expect=version) for i in range(16)]
        results = await asyncio.gather(*map(outcome, swaps))
        winners = [i for i, r in enumerate(results) if r is not Conflict]
        assert len(winners) == 1
        assert await content(store, "a") == b"%d" % winners[0]

    async def test_no_update_is_lost(self, store: ObjectStore) -> None:
        """Counting by compare-and-swap, everybody's steps are counted."""
        await store.put("counter", b"0")
        await asyncio.gather(*[increment(store, "counter", 10) for _ in range(8)])
        assert await content(store, "counter") == b"80"


class CopyAndDeleteRules:
    """Objects are copied and removed."""

    @pytest.mark.parametrize("data", [b"", b"content"], ids=["empty", "content"])
    async def test_copy(self, store: ObjectStore, data: bytes) -> None:
        """A copy holds what the source holds, over what was there, and stays when the source goes."""
        await store.put("src/a", data)
        await store.put("dst/b", b"old")
        info = await store.copy("src/a", "dst/b")
        assert info == await store.stat("dst/b")
        await store.put("src/a", b"new")
        await store.delete("src/a")
        assert await content(store, "dst/b") == data

    async def test_copy_onto_itself_or_again(self, store: ObjectStore) -> None:
        """A copy may be repeated, and of an object onto itself changes nothing that is read."""
        await store.put("a", b"1")
        for dst in ("a", "b", "b"):
            await store.copy("a", dst)
            assert await content(store, dst) == b"1"
        assert await listing(store) == ["a", "b"]

    async def test_copy_of_nothing(self, store: ObjectStore) -> None:
        """What is not there cannot be copied, and the destination stays."""
        await store.put("b", b"old")
        with pytest.raises(KeyNotFound):
            await store.copy("a", "b")
        assert await content(store, "b") == b"old"

    async def test_delete_is_idempotent(self, store: ObjectStore) -> None:
        """Deleting again, or what never was, is no error."""
        await store.put("a/b/c/d", b"1")
        await store.put("b", b"1")
        for key in ("a/b/c/d", "a/b/c/d", "never/was", "b/below", "b/far/below/an/object"):
            await store.delete(key)
        assert await listing(store) == ["b"]

    async def test_delete_of_a_version(self, store: ObjectStore) -> None:
        """A delete of an older version is a conflict; of the present one it deletes; of nothing it is done."""
        old = await store.put("a", b"1")
        new = await store.put("a", b"2")
        with pytest.raises(Conflict if store.capabilities.conditional_delete else StorageError):
            await store.delete("a", expect=old)
        assert await content(store, "a") == b"2"
        if not store.capabilities.conditional_delete:
            return  # refused rather than ignored
        await store.delete("a", expect=new)
        await store.delete("a", expect=new)
        assert await listing(store) == []

    async def test_delete_and_swap_race(self, store: ObjectStore) -> None:
        """Of a delete and a swap of one version exactly one wins."""
        for _ in range(20):
            version = await store.put("a", b"1")
            race = (store.delete("a", expect=version), store.put("a", b"2", expect=version))
            deleted, swapped = await asyncio.gather(*map(outcome, race))
            assert (await listing(store) == []) == (swapped is Conflict)
            assert deleted is None or swapped is not Conflict

    async def test_a_value_may_return_while_its_neighbours_go(self, store: ObjectStore) -> None:
        """Writers and deleters of neighbours do not disturb each other: whoever wrote last finds his value."""

        async def live(key: str) -> None:
            for i in range(15):
                await store.put(key, b"%d" % (i % 2) * (i % 2))
                await store.delete(key)
            await store.put(key, b"end")

        await asyncio.gather(*[live(f"x/y/z/{i % 3}/{i}") for i in range(9)])
        assert len(await listing(store, "x/")) == 9


class KeyRules:
    """Keys outside the grammar reach no storage."""

    @pytest.mark.parametrize(
        "key",
        [
            *(
                "",
                "/",
                "a/",
                "/a",
                "a//b",
                ".",
                "..",
                "a/..",
                "../a",
                "a/./b",
                "a b",
                "a\n",
                "ä",
                "a\0b",
                "a%2fb",
                "a\\b",
            ),
            *("x" * 256, "/".join(["x" * 200] * 6)),
        ],
        ids=repr,
    )
    async def test_bad_keys_are_refused_everywhere(self, store: ObjectStore, key: str) -> None:
        """A key outside the grammar reaches no storage."""
        with pytest.raises(KeyInvalid):
            await store.stat(key)
        with pytest.raises(KeyInvalid):
            await content(store, key)
        with pytest.raises(KeyInvalid):
            await store.put(key, b"")
        with pytest.raises(KeyInvalid):
            await store.delete(key)
        with pytest.raises(KeyInvalid):
            await store.create_upload(key, b"")
        await store.put("good", b"")
        for src, dst in ((key, "good"), ("good", key)):
            with pytest.raises(KeyInvalid):
                await store.copy(src, dst)

    @pytest.mark.parametrize("key", ["x" * 255, "/".join(["x" * 203] * 5), "A/a", "...", ".a", "!", "=+-_.!"])
    async def test_odd_keys_are_taken(self, store: ObjectStore, key: str) -> None:
        """A key at the edge of the grammar is stored and listed like any other."""
        await store.put(key, b"x")
        assert await listing(store) == [key]
        assert await content(store, key) == b"x"

    @pytest.mark.parametrize(("first", "second"), [("a/b", "a"), ("a", "a/b"), ("a", "a/b/c"), ("a/b/c", "a/b")])
    @pytest.mark.parametrize("data", [b"", b"x"], ids=["empty", "content"])
    @pytest.mark.parametrize("expect", [ANY, ABSENT], ids=["any", "absent"])
    async def test_no_key_is_a_directory_of_another(
        self, store: ObjectStore, first: str, second: str, data: bytes, expect: Expect
    ) -> None:
        """A key above or below an object is refused, and the object stays."""
        await store.put(first, b"x")
        with pytest.raises(KeyInvalid):
            await store.put(second, data, expect=expect)
        assert await listing(store) == [first]

    @pytest.mark.parametrize("data", [b"", b"x"], ids=["empty", "content"])
    async def test_a_name_is_free_again(self, store: ObjectStore, data: bytes) -> None:
        """When all objects under a name are deleted, it may become an object itself, and the other way round."""
        for key in ("a/b/c/d", "a", "a/b", "a"):
            await store.put(key, data)
            assert await listing(store) == [key]
            await store.delete(key)

    async def test_upper_and_lower_case_differ(self, store: ObjectStore) -> None:
        """Keys that differ in case are two objects."""
        await fill(store, "tag", "Tag")
        assert (await content(store, "tag"), await content(store, "Tag")) == (b"tag", b"Tag")
