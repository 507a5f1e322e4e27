"""Reservations over real S3 servers: who publishes and who withdraws do not both win."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from moorage.registry.oci import RepositoryName
from moorage.registry.store.records import Header, Record, Records
from moorage.storage_backends.s3 import Location, S3Store

from tests.content import image
from tests.s3.servers import S3Server
from tests.suites.store_content import outcome

_HERE = RepositoryName.parse("team/app")
_MANIFEST = image("reserved").manifest


@pytest.fixture
async def records(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Records]:
    """Records in a bucket of their own."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    store = await S3Store.open(Location.parse(server.url(server.bucket())))
    yield Records(store)
    await store.close()


async def test_a_reservation_is_published_or_withdrawn(records: Records) -> None:
    """Only one of the two is told that it won, and then it is so. versitygw looks at the condition of a delete and then
    deletes whatever is there, so what was published in between was lost."""
    for turn in range(80):
        await asyncio.gather(*(_race(records, f"{turn:016}-{lane}") for lane in range(4)))


async def _race(records: Records, generation: str) -> None:
    record = Record(_MANIFEST, generation, Header(_MANIFEST.media_type, time.time()))
    version = await records.reserve(_HERE, record)
    race = (records.publish(_HERE, record, version), records.withdraw(_HERE, record, version))
    published, withdrawn = await asyncio.gather(*map(outcome, race))
    assert (published, withdrawn) != (None, None)
    if None in (published, withdrawn):  # else nobody was told that it won, as after a lost answer
        assert await records.exists(_HERE, _MANIFEST.digest, generation) == (published is None)
