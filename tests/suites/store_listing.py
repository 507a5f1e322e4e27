"""What every store shows in a list: byte order, places to go on from, common prefixes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moorage.storage_backends.base import ObjectInfo, ObjectStore
from moorage.storage_backends.errors import KeyInvalid

from tests.suites.store_content import LOOKALIKES, fill, folded, listing

_components = st.sampled_from(["a", "ab", "a-b", "a.b", "a!", "b", "-", "a-", "A"])
_keys = st.lists(_components, min_size=1, max_size=4).map("/".join)

_SHARED = [
    HealthCheck.function_scoped_fixture,  # every example empties the store first
    HealthCheck.differing_executors,  # the same rule runs over every store; what is drawn does not depend on it
]


class ListRules:
    """A list is what sorting the keys says."""

    async def test_list_is_in_byte_order(self, store: ObjectStore) -> None:
        """Whole keys in byte order, also where the name of one directory begins the name of another."""
        await fill(store, *reversed(LOOKALIKES))
        assert await listing(store) == sorted(LOOKALIKES) == list(LOOKALIKES)

    async def test_list_tells_the_facts(self, store: ObjectStore) -> None:
        """An entry of a list says the same as ``stat``."""
        await fill(store, "a/b", "c")
        assert [e async for e in store.list("")] == [await store.stat("a/b"), await store.stat("c")]

    @pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "a/b-", "a/b-c/", "aa", "b", "c", "a/b/c/d/"])
    async def test_list_of_a_prefix(self, store: ObjectStore, prefix: str) -> None:
        """A prefix may end anywhere in a name."""
        await fill(store, *LOOKALIKES)
        assert await listing(store, prefix) == [k for k in LOOKALIKES if k.startswith(prefix)]

    @pytest.mark.parametrize("after", [*LOOKALIKES, "a", "a/", "a/b-c/", "a/z", "zz", "!"])
    async def test_list_goes_on_after_any_place(self, store: ObjectStore, after: str) -> None:
        """``after`` is left out itself, and need not exist."""
        await fill(store, *LOOKALIKES)
        assert await listing(store, after=after) == [k for k in LOOKALIKES if k > after]

    @pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "a/b-", "aa", "c"])
    @pytest.mark.parametrize("after", ["", "a", "a-b", "a/", "a/b-c", "a/b-c/", "a/b.c", "a0", "aa/", "aa/x"])
    async def test_delimiter_folds(self, store: ObjectStore, prefix: str, after: str) -> None:
        """With a delimiter, keys that go on behind it are one common prefix, which ``after`` counts as an entry."""
        await fill(store, *LOOKALIKES)
        assert await listing(store, prefix, after=after, delimiter="/") == folded(LOOKALIKES, prefix, after)

    async def test_emptied_directories_do_not_show(self, store: ObjectStore) -> None:
        """Where every object is deleted there is no common prefix."""
        await fill(store, "links/n1/sha256/x/u", "links/n2/sha256/x/u", "top")
        await store.delete("links/n1/sha256/x/u")
        assert await listing(store, "links/", delimiter="/") == ["links/n2/"]
        await store.delete("links/n2/sha256/x/u")
        assert await listing(store, delimiter="/") == ["top"]
        assert await listing(store, "links/") == []

    async def test_a_list_may_be_dropped(self, store: ObjectStore) -> None:
        """Who asks only whether there is something takes one entry and goes."""
        await fill(store, *LOOKALIKES)
        assert (await anext(store.list("a"))) == await store.stat("a!b")

    async def test_list_outlives_deletes(self, store: ObjectStore) -> None:
        """What is deleted while a list runs may be missing; what stays is there, once, in order."""
        keys = [f"k/{i:03}" for i in range(40)]
        await fill(store, *keys)
        seen = []
        async for entry in store.list("k/"):
            assert isinstance(entry, ObjectInfo)
            seen.append(entry.key)
            if int(entry.key[2:]) % 2 == 0:
                await store.delete(f"k/{int(entry.key[2:]) + 1:03}")
        assert seen == sorted(set(seen))
        assert set(await listing(store, "k/")) <= set(seen) <= set(keys)

    async def test_list_of_a_crowd(self, store: ObjectStore) -> None:
        """A directory of a thousand and more is listed whole, in order, and resumed in the middle."""
        keys = sorted(f"tags/n/v{i}" for i in range(1200))
        async with store.batch():
            for key in keys:
                await store.put(key, b"")
        assert await listing(store, "tags/n/") == keys
        assert await listing(store, "tags/n/", after=keys[700]) == keys[701:]
        assert await listing(store, "tags/n/v11") == [k for k in keys if k.startswith("tags/n/v11")]

    @pytest.mark.parametrize("prefix", ["/", "a//", "../", "a/../", "ä", "a\n"], ids=repr)
    async def test_list_of_a_prefix_of_no_key(self, store: ObjectStore, prefix: str) -> None:
        """A prefix that no key has is refused, as a mistake."""
        with pytest.raises(KeyInvalid):
            await listing(store, prefix)

    async def test_only_a_slash_delimits(self, store: ObjectStore) -> None:
        """Another delimiter is refused rather than ignored."""
        with pytest.raises(KeyInvalid):
            await listing(store, delimiter="-")

    @settings(max_examples=60, deadline=None, suppress_health_check=_SHARED)
    @given(
        drawn=st.sets(_keys, max_size=8),
        prefix=st.just("") | _keys | _keys.map("{}/".format),
        after=st.just("") | _keys | _keys.map("{}/".format),
        delimiter=st.sampled_from([None, "/"]),
    )
    async def test_list_agrees_with_a_model(
        self, store: ObjectStore, drawn: set[str], prefix: str, after: str, delimiter: str | None
    ) -> None:
        """For any keys, prefix, place and delimiter."""
        for key in await listing(store):
            await store.delete(key)
        keys = sorted(k for k in drawn if not any(other.startswith(f"{k}/") for other in drawn))
        async with store.batch():
            for key in keys:
                await store.put(key, b"")
        shown = await listing(store, prefix, after=after, delimiter=delimiter)
        plain = [k for k in keys if k.startswith(prefix) and k > after]
        assert shown == (folded(keys, prefix, after) if delimiter else plain)
