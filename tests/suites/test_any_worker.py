"""Any worker goes on with any upload: its state is in the store, what workers remember are only hints (promise M7)."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from moorage.registry.oci import BlobUnknown, BlobUploadUnknown, Digest, DigestInvalid, Registry
from moorage.registry.store import LocalRegistry
from moorage.registry.store.measured import OPERATIONS, MeasuredStore
from moorage.storage_backends.filesystem import FilesystemStore

from tests.content import blob, chunked, read_bytes, repository
from tests.servers import MoorageProcess
from tests.stage import bare_client

_HERE = repository("team/app")
_CONTENT = blob("travelling", 300_000).content
_ROUTES = list(itertools.product(range(2), repeat=4))
"""Who opens the session, who takes the first piece, who the second, who closes."""


class Reads:
    """Counts what is read back."""

    def __init__(self) -> None:
        self.count = 0

    def storage(self, operation: int, nanoseconds: int, *, failed: bool) -> None:
        """Takes a figure."""
        self.count += OPERATIONS[operation] == "read"


@pytest.fixture
def reads() -> Reads:
    """What all workers read."""
    return Reads()


@pytest.fixture
async def workers(tmp_path: Path, reads: Reads) -> AsyncIterator[Sequence[Registry]]:
    """Two workers over one directory, who share nothing else."""
    stores = [await FilesystemStore.open(tmp_path / "root") for _ in range(2)]
    registries = [await LocalRegistry.open(MeasuredStore(store, reads)) for store in stores]
    reads.count = 0
    yield registries
    for store in stores:
        await store.close()


async def travel(workers: Sequence[Registry], route: Sequence[int], digest: Digest) -> None:
    """An upload in two pieces, each request at the worker that the route says."""
    opener, first, second, closer = (workers[number] for number in route)
    upload = (await opener.start_upload(_HERE)).id
    middle = len(_CONTENT) // 2
    assert (await first.append_upload(_HERE, upload, chunked(_CONTENT[:middle], 70_000), start=0)).offset == middle
    assert (await second.upload_status(_HERE, upload)).offset == middle
    await second.append_upload(_HERE, upload, chunked(_CONTENT[middle:], 70_000), start=middle)
    try:
        assert (await closer.finish_upload(_HERE, upload, digest)).size == len(_CONTENT)
    finally:
        for worker in workers:
            with pytest.raises(BlobUploadUnknown):
                await worker.upload_status(_HERE, upload)


@pytest.mark.parametrize(
    ("route", "algorithm"),
    [*((route, "sha256") for route in _ROUTES), *((route, "sha512") for route in _ROUTES[::5])],
    ids=lambda part: part if isinstance(part, str) else "".join("AB"[number] for number in part),
)
async def test_an_upload_goes_from_worker_to_worker(
    workers: Sequence[Registry], reads: Reads, route: Sequence[int], algorithm: str
) -> None:
    """The blob is right, on both; the bytes are read back only where no worker has hashed all of them."""
    digest = Digest.of(_CONTENT, algorithm)
    await travel(workers, route, digest)
    _, first, second, _ = route
    assert reads.count == (0 if first == second and algorithm == "sha256" else 1)
    for worker in workers:
        assert await read_bytes(worker, _HERE, digest) == _CONTENT


@pytest.mark.parametrize("route", _ROUTES[::3], ids=lambda route: "".join("AB"[number] for number in route))
async def test_a_wrong_digest_is_found_wherever_it_is_closed(workers: Sequence[Registry], route: Sequence[int]) -> None:
    """Nobody takes another worker's word for bytes that nobody hashed."""
    wrong = blob("something else").digest
    with pytest.raises(DigestInvalid):
        await travel(workers, route, wrong)
    for worker in workers:
        for digest in (wrong, Digest.of(_CONTENT)):
            with pytest.raises(BlobUnknown):
                await worker.resolve_blob(_HERE, digest)


async def test_requests_of_one_upload_on_many_connections(tmp_path: Path) -> None:
    """Four processes, eight connections, each request on any of them."""
    dice = random.Random(1)
    async with AsyncExitStack() as stack:
        server = stack.enter_context(MoorageProcess(tmp_path / "root", workers=4))
        clients = [await stack.enter_async_context(bare_client(server.url)) for _ in range(8)]
        for client in clients:
            assert (await client.get("/v2/")).status_code == 200

        async def ask(method: str, url: str, expected: int, content: bytes = b"") -> httpx.Response:
            answer = await dice.choice(clients).request(method, url, content=content)
            assert answer.status_code == expected, answer.text
            return answer

        for number in range(12):
            content = blob(number, 5000).content
            location = (await ask("POST", "/v2/team/app/blobs/uploads/", 202)).headers["location"]
            for start in range(0, 5000, 1250):
                await ask("PATCH", location, 202, content[start : start + 1250])
                assert (await ask("GET", location, 204)).headers["range"] == f"0-{start + 1249}"
            await ask("PUT", f"{location}?digest={Digest.of(content)}", 201)
            assert (await ask("GET", f"/v2/team/app/blobs/{Digest.of(content)}", 200)).content == content
