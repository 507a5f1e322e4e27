"""What only some servers or sizes have: encryption at rest, buckets as hosts, copies in parts, reads that are torn."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import FlexibleChecksumError
from moorage.storage_backends.errors import Conflict, KeyNotFound, StorageError, StorageUnavailable
from moorage.storage_backends.s3 import Location, S3Store

from tests.s3.servers import DOMAIN, KMS_KEY, S3Server, running
from tests.suites.store_content import MIB, chunks, content, listing, noted, outcome

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """MinIO with a key service."""
    with running("minio with keys", tmp_path_factory.mktemp("keys")) as server:
        yield server


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """versitygw that keeps metadata beside the files, and tears reads while an object is overwritten."""
    with running("versitygw with sidecar", tmp_path_factory.mktemp("sidecar")) as server:
        yield server


def known(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> S3Server:
    """The server, its credentials in our environment."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
async def store(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Store]:
    """A store on each of the usual servers."""
    known(monkeypatch, server)
    store = await S3Store.open(Location.parse(server.url(server.bucket(), "p")))
    yield store
    await store.close()


@pytest.mark.parametrize(
    ("options", "algorithm"),
    [
        pytest.param("sse=AES256", "AES256", id="sse"),
        pytest.param(f"sse=aws:kms&kms_key={KMS_KEY}", "aws:kms", id="kms with a key"),
        pytest.param("sse=aws:kms", "aws:kms", id="kms"),
    ],
)
async def test_encryption(keys: S3Server, monkeypatch: pytest.MonkeyPatch, options: str, algorithm: str) -> None:
    """Everything that the store makes is encrypted as asked for: values, uploads and copies, small and in parts."""
    known(monkeypatch, keys)
    bucket = keys.bucket()
    store = await S3Store.open(Location.parse(f"{keys.url(bucket, 'p')}&{options}"))
    version = await store.put("value", b"old")
    await store.put("value", b"new", expect=version)
    assert await outcome(store.put("value", b"late", expect=version)) is Conflict
    for key, size in (("small", 5), ("large", 13 * MIB)):
        upload = await store.create_upload(key, b"")
        await store.append_upload(upload, 0, chunks(os.urandom(size)), noted())
        await store.commit_upload(upload, size)
    await store.copy("small", "copied")
    store._copies.most_at_once, store._copies.part = 6 * MIB, 6 * MIB
    await store.copy("large", "in-parts")
    assert await content(store, "in-parts") == await content(store, "large")
    assert await content(store, "value") == b"new"
    made = keys.keys(bucket)
    assert len(made) == 5
    for key in made:
        head = keys.client().head_object(Bucket=bucket, Key=key)
        assert head.get("ServerSideEncryption") == algorithm, key
        if "kms_key" in options:
            assert head["SSEKMSKeyId"].endswith(KMS_KEY)
    await store.close()


async def test_encryption_that_is_not_done_is_refused(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> None:
    """A server that takes the request for encryption and stores in the clear is no place to start on."""
    known(monkeypatch, server)
    with pytest.raises(StorageError, match=r"encrypt"):
        await S3Store.open(Location.parse(f"{server.url(server.bucket())}&sse=AES256"))


async def test_buckets_as_hosts(keys: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual addressing: the bucket stands in the host. No name has to be resolved, for the server is our proxy."""
    known(monkeypatch, keys)
    monkeypatch.setenv("HTTP_PROXY", keys.endpoint)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    bucket = keys.bucket()
    store = await S3Store.open(Location.parse(f"s3://{bucket}/p?endpoint=http://{DOMAIN}&addressing=virtual"))
    await store.put("a/b", b"content")
    assert await content(store, "a/b") == b"content"
    assert await listing(store) == ["a/b"]
    url = await store.presign("a/b", 60, headers={})
    assert url is not None
    assert url.startswith(f"http://{bucket}.{DOMAIN}/p/a/b?")
    assert keys.keys(bucket) == ["p/a/b"]
    await store.close()


@pytest.mark.parametrize("size", [10 * MIB, 10 * MIB + 1, 17 * MIB])
async def test_a_large_copy_goes_in_parts(store: S3Store, size: int) -> None:
    """What is beyond the limit of one request is copied by the server part by part, and replaces what was there."""
    data = os.urandom(size)
    await store.put("source", data)
    await store.put("target", b"old")
    store._copies.most_at_once, store._copies.part = 5 * MIB, 5 * MIB
    copied = await store.copy("source", "target")
    assert (copied.size, copied.version) == (size, (await store.stat("target")).version)
    assert await content(store, "target") == data
    assert await content(store, "source") == data


async def test_a_large_copy_that_fails_leaves_nothing(store: S3Store, server: S3Server) -> None:
    """Of a source that is gone, or goes meanwhile: no target, and no parts that are paid for."""
    store._copies.most_at_once, store._copies.part = 5 * MIB, 5 * MIB
    bucket = store._location.bucket
    assert await outcome(store.copy("nothing", "target")) is KeyNotFound
    await store.put("source", os.urandom(11 * MIB))
    create = store._multipart.create

    async def create_late(key: str) -> tuple[str, bool]:
        created = await create(key)
        await store.put("source", os.urandom(11 * MIB))
        return created

    store._multipart.create = create_late  # type: ignore[method-assign]  # between the look and the first part
    assert await outcome(store.copy("source", "target")) is StorageUnavailable
    assert await listing(store) == ["source"]
    assert server.client().list_multipart_uploads(Bucket=bucket, Prefix="p/target").get("Uploads", []) == []


async def test_torn_reads_are_read_again(sidecar: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an object is overwritten this server gives the body of one version under the ETag of another. A reader who
    trusts it sees that; ours reads again, so every value comes whole, with its own version."""
    known(monkeypatch, sidecar)
    bucket = sidecar.bucket()
    store = await S3Store.open(Location.parse(sidecar.url(bucket, "p")))
    values = [json.dumps({"n": number, "x": "x" * number}).encode() for number in range(1000, 1100)]
    versions = {f'"{hashlib.md5(value, usedforsecurity=False).hexdigest()}"': value for value in values}
    await store.put("tag", values[0])
    writing = asyncio.create_task(_write(store, values * 2))
    reads = 0
    try:
        while not writing.done():
            for found in await asyncio.gather(*[_read(store) for _ in range(4)]):
                assert found[1] == versions[found[0]]
                reads += 1
    finally:
        await writing
        await store.close()
    assert reads > 0
    print(f"{reads} reads, {_torn_of(sidecar, bucket, values)} of 300 plain ones are torn")


async def _write(store: S3Store, values: list[bytes]) -> None:
    for value in values:
        await store.put("tag", value)


async def _read(store: S3Store) -> tuple[str, bytes]:
    async with store.read("tag") as reading:
        return reading.info.version, b"".join([chunk async for chunk in reading])


def _torn_of(server: S3Server, bucket: str, values: list[bytes]) -> int:
    """How many of 300 plain reads beside a writer do not have the hash that they claim."""
    client = server.client()

    def is_torn(_: int) -> bool:
        answer = client.get_object(Bucket=bucket, Key="p/tag")
        try:
            digest = hashlib.md5(answer["Body"].read(), usedforsecurity=False).hexdigest()
        except FlexibleChecksumError:  # newer clients of boto3 look too
            return True
        return bool(answer["ETag"].strip('"') != digest)

    with ThreadPoolExecutor(1) as writer, ThreadPoolExecutor(3) as readers:
        written = writer.map(lambda value: client.put_object(Bucket=bucket, Key="p/tag", Body=value), values)
        torn = sum(readers.map(is_torn, range(300)))
        list(written)
    return torn
