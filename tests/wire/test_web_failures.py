"""What the web layer answers when it must refuse, and when the registry behind it fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from moorage.registry.oci import (
    BlobStream,
    Descriptor,
    Digest,
    Registry,
    RepositoryName,
    TooManyRequests,
    Unavailable,
    UploadStatus,
)
from moorage.registry.oci.media_types import OCTET_STREAM
from moorage.registry.store import LocalRegistry
from moorage.registry.web.app import create_app
from moorage.registry.wrap.read_only import NoDelete, ReadOnly
from moorage.storage_backends.errors import StorageError, StorageFull, StorageUnavailable
from moorage.storage_backends.memory import MemoryStore

from tests.interleaving import SteppedStore
from tests.stage import ON_STAGE, Stage
from tests.wire.boat import BLOB_URL, DIGEST, MANIFEST_URL, UPLOADS_URL, error_code

pytestmark = ON_STAGE


async def test_405_says_what_is_allowed(wire: httpx.AsyncClient, stage: Stage, local: Registry) -> None:
    """By the path's methods, and under a switch by what it leaves."""
    answer = await wire.post("/v2/moored/boat/tags/list")
    assert (answer.status_code, error_code(answer), answer.headers["allow"]) == (405, "UNSUPPORTED", "GET")
    for wrapper, switch in ((ReadOnly, "--read-only"), (NoDelete, "--no-delete")):
        stage.show(create_app(wrapper(local)))
        answer = await wire.delete(MANIFEST_URL)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        assert switch in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("path", ["/v3", "/v2x", "/", "/v2/a/b/c", "/healthz/x"])
async def test_unknown_paths(wire: httpx.AsyncClient, path: str) -> None:
    """404 in the protocol's shape, everywhere."""
    answer = await wire.get(path)
    assert (answer.status_code, error_code(answer)) == (404, "NOT_FOUND")


async def test_operations(wire: httpx.AsyncClient, stage: Stage, local: Registry) -> None:
    """Liveness, readiness and metrics beside the API."""
    state = {"ready": True}
    stage.show(create_app(local, ready=lambda: state["ready"], metrics=lambda: b"ships 3\n"))
    assert (await wire.get("/healthz")).status_code == 200
    assert (await wire.get("/readyz")).status_code == 200
    state["ready"] = False
    assert (await wire.get("/readyz")).status_code == 503
    assert (await wire.get("/healthz")).status_code == 200
    answer = await wire.get("/metrics")
    assert answer.content == b"ships 3\n"
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert (await wire.post("/healthz")).headers["allow"] == "GET, HEAD"


class Broken:
    """The gate of a store that fails at every call."""

    def __init__(self, fault: Exception) -> None:
        self.fault = fault

    async def turn(self) -> None:
        """Fails."""
        raise self.fault

    def answered(self) -> None:
        """Never comes to this."""

    def saw(self, doom: str) -> None:
        """Never comes to this."""


class Failing(NoDelete):
    """A registry whose reads fail in the middle of the content."""

    def __init__(self, inner: Registry, *, content: tuple[bytes, ...], size: int) -> None:
        super().__init__(inner)
        self.content = content
        self.descriptor = Descriptor(OCTET_STREAM, DIGEST, size)

    @asynccontextmanager
    async def read_blob(  # a generator is one way to make such a context manager
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[BlobStream]:
        yield self

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.content:
            yield chunk
        raise Unavailable


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        pytest.param(StorageUnavailable("bucket is away"), 503, "UNAVAILABLE", id="unavailable"),
        pytest.param(StorageFull("no inode"), 507, "STORAGE_FULL", id="full"),
        pytest.param(StorageError("secret path"), 500, "UNKNOWN", id="storage defect"),
        pytest.param(ZeroDivisionError("secret number"), 500, "UNKNOWN", id="defect"),
        pytest.param(TooManyRequests(), 429, "TOOMANYREQUESTS", id="too many"),
    ],
)
@pytest.mark.parametrize("path", [BLOB_URL, MANIFEST_URL])
async def test_faults_become_answers(
    wire: httpx.AsyncClient,
    stage: Stage,
    caplog: pytest.LogCaptureFixture,
    fault: Exception,
    status: int,
    code: str,
    path: str,
) -> None:
    """The right status and no word about our insides; what nobody expected is in the log with its trace."""
    stage.show(
        create_app(LocalRegistry(SteppedStore(MemoryStore(), Broken(fault)), allow_sparse=False, clock=time.time))
    )
    answer = await (wire.get(path) if path == BLOB_URL else wire.head(path))
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == ("5" if status in (429, 503) else None)
    if path == BLOB_URL:
        assert error_code(answer) == code
        assert str(fault) not in answer.text or status == 429
    traces = [record for record in caplog.records if record.exc_info and record.name.startswith("moorage")]
    assert len(traces) == (1 if status == 500 else 0)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        pytest.param((b"x" * 1000,), 2000, id="a fault in the middle"),
        pytest.param((b"x" * 1000, b"x" * 1000, b"x"), 2000, id="more than announced ends where announced"),
    ],
)
async def test_a_failure_in_the_middle_breaks_the_connection(
    wire: httpx.AsyncClient,
    stage: Stage,
    local: Registry,
    caplog: pytest.LogCaptureFixture,
    content: tuple[bytes, ...],
    size: int,
) -> None:
    """Half an answer is never a whole one: the client notices, or has got exactly what was announced."""
    caplog.set_level(logging.CRITICAL)
    stage.show(create_app(Failing(local, content=content, size=size)))
    if sum(map(len, content)) < size:
        with pytest.raises(httpx.RemoteProtocolError):
            await wire.get(BLOB_URL)
    else:
        assert len((await wire.get(BLOB_URL)).content) == size


class Endless(NoDelete):
    """A registry with a blob too large to be sent; ``closed`` is set when its reader is done with it."""

    descriptor = Descriptor(OCTET_STREAM, DIGEST, 2**50)

    def __init__(self, inner: Registry) -> None:
        super().__init__(inner)
        self.closed = asyncio.Event()

    @asynccontextmanager
    async def read_blob(  # a generator is one way to make such a context manager
        self, repository: RepositoryName, digest: Digest, *, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[BlobStream]:
        try:
            yield self
        finally:
            self.closed.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunk = bytes(65536)
        while True:
            yield chunk
            await asyncio.sleep(0)


async def test_nothing_is_produced_for_a_client_that_left(
    wire: httpx.AsyncClient, stage: Stage, local: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """Containerd closes after the bytes it wanted: the stream is closed, and nobody logs an error."""
    endless = Endless(local)
    stage.show(create_app(endless))
    async with wire.stream("GET", BLOB_URL) as answer:
        async for _ in answer.aiter_raw():
            break
    async with asyncio.timeout(25):  # after 30 s the stalled write would end it
        await endless.closed.wait()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


class Injecting(NoDelete):
    """A registry, for example a remote one, whose upload ids are not to be trusted."""

    upload = ""

    async def start_upload(self, repository: RepositoryName, *, algorithm: str | None = None) -> UploadStatus:
        return UploadStatus(self.upload, 0)


@pytest.mark.parametrize("upload", ["id\r\nX-Injected: yes", "two words", "ünicode", "tab\t", "nul\0", ""])
async def test_a21_no_header_is_built_from_unchecked_text(
    wire: httpx.AsyncClient, stage: Stage, local: Registry, caplog: pytest.LogCaptureFixture, upload: str
) -> None:
    """What is not visible ASCII never gets into a header: an error of ours, not a header of theirs (rule A21)."""
    caplog.set_level(logging.CRITICAL)
    injecting = Injecting(local)
    injecting.upload = upload
    stage.show(create_app(injecting))
    answer = await wire.post(UPLOADS_URL)
    assert (answer.status_code, "x-injected" in answer.headers) == (500, False)
