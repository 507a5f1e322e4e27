"""``S3Store`` keeps the contract on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from moorage.storage_backends.base import Expect, ObjectStore
from moorage.storage_backends.errors import KeyInvalid
from moorage.storage_backends.s3 import Location, S3Store

from tests.s3.servers import S3Server
from tests.suites.store_content import content, listing
from tests.suites.store_suite import StoreSuite


class TestS3Store(StoreSuite):
    """The suite over a bucket."""

    TICK = 1.1  # S3 tells whole seconds

    @pytest.fixture
    async def store(
        self, server: S3Server, patience: None, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[ObjectStore]:
        """A store over a bucket of its own."""
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = await S3Store.open(Location.parse(server.url(server.bucket())))
        yield store
        await store.close()

    @pytest.mark.parametrize(("first", "second"), [("a/b", "a"), ("a", "a/b"), ("a", "a/b/c"), ("a/b/c", "a/b")])
    @pytest.mark.parametrize("data", [b"x"], ids=["content"])
    @pytest.mark.parametrize("expect", ["any"])
    async def test_no_key_is_a_directory_of_another(
        self, store: ObjectStore, first: str, second: str, data: bytes, expect: Expect
    ) -> None:
        """A server over files refuses such a key, as ours does. MinIO takes both and lists one of them, so our layout
        must never have such keys."""
        await store.put(first, b"first")
        try:
            await store.put(second, data)
        except KeyInvalid:
            assert await listing(store) == [first]
        assert await content(store, first) == b"first"

    async def test_a_value_that_takes_the_place_of_another_has_no_name_yet(
        self, store: ObjectStore, server: S3Server
    ) -> None:
        """versitygw lists it for a moment, and for ever if it dies then: under a name that nobody put."""
        assert isinstance(store, S3Store)
        await store.put("tags/latest", b"value")
        name = "tags/.latest.sgwtmp.1795304958667456978"
        server.client().put_object(Bucket=store._location.bucket, Key=name, Body=b"new")
        assert await listing(store) == ["tags/latest"]
