"""Hosts that are busy, slow, wrong or lying: what passes is tried again, what is wrong never appears."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from moorage.puller.errors import BadAnswer, RateLimited, Restarted, Stalled
from moorage.puller.events import Event, Retried
from moorage.puller.fetch.ingest import Ingest
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.messages import RetryPolicy, Timeouts
from moorage.registry.oci import BlobUnknown, Denied, Descriptor, DigestMismatch, OciError, SizeInvalid
from moorage.registry.oci.media_types import OCTET_STREAM

from tests.blobhost import FINE, Asked, Behaviour, BlobHost
from tests.fetching import CONTENT, MIB, blob_of, fetching, files, left, read_all, stored

__all__ = ["files"]


async def test_retry_after_is_honoured(files: LayoutFiles) -> None:
    """429 with a wait that we have the patience for."""
    busy = Behaviour(status=429, headers={"Retry-After": "1"})
    with BlobHost(CONTENT, lambda asked: busy if asked.number == 0 else FINE) as host:
        began, events = time.monotonic(), list[Event]()
        async with fetching(host, files, events=events) as fetcher:
            await fetcher.fetch(blob_of())
    assert time.monotonic() - began >= 1.0
    assert [event.delay >= 1.0 for event in events if isinstance(event, Retried)] == [True]


async def test_a_wait_that_is_too_long_is_an_error(files: LayoutFiles) -> None:
    """It names the limit and what the registry asks for."""
    with BlobHost(CONTENT, lambda asked: Behaviour(status=429, headers={"Retry-After": "3600"})) as host:
        async with fetching(host, files) as fetcher:
            with pytest.raises(RateLimited, match="429") as caught:
                await fetcher.fetch(blob_of())
    assert caught.value.retry_after == 3600.0
    assert len(host.asked) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
async def test_what_passes_is_asked_again(files: LayoutFiles, status: int) -> None:
    """A few times."""
    with BlobHost(CONTENT, lambda asked: Behaviour(status=status) if asked.number < 3 else FINE) as host:
        async with fetching(host, files) as fetcher:
            await fetcher.fetch(blob_of())
    assert len(host.asked) == 4


@pytest.mark.parametrize(("status", "error"), [(404, BlobUnknown), (403, Denied)])
async def test_a_refusal_is_final(files: LayoutFiles, status: int, error: type[OciError]) -> None:
    """The registry's own words, at once."""
    words = b'{"errors":[{"code":"X","message":"not for you"}]}'
    with BlobHost(CONTENT, lambda asked: Behaviour(status=status, body=words)) as host:
        async with fetching(host, files) as fetcher:
            with pytest.raises(error, match="not for you"):
                await fetcher.fetch(blob_of())
    assert len(host.asked) == 1


async def test_a_trickle_is_a_stall(files: LayoutFiles) -> None:
    """Bytes that keep coming, too few of them, do not count as life."""
    timeouts = Timeouts(stall=0.3, stall_size=32 * 1024)
    with BlobHost(CONTENT, lambda asked: Behaviour(rate=2000.0)) as host:
        async with fetching(host, files, timeouts=timeouts, retry=RetryPolicy(attempts=2, first_delay=0.01)) as fetcher:
            began = time.monotonic()
            with pytest.raises(Stalled):
                await fetcher.fetch(blob_of())
    assert time.monotonic() - began < len(CONTENT) / 2000.0 / 2  # all of it would take twice as long


async def test_silence_is_a_stall(files: LayoutFiles) -> None:
    """After the headers nothing comes; the next connection is better."""
    timeouts = Timeouts(stall=1.0)  # which the second one must keep, on a busy machine too
    with BlobHost(CONTENT, lambda asked: Behaviour(rate=0.5) if asked.number == 0 else FINE) as host:
        async with fetching(host, files, timeouts=timeouts) as fetcher:
            await fetcher.fetch(blob_of())
    assert len(host.asked) == 2


async def test_an_expired_redirect_is_resolved_again(files: LayoutFiles) -> None:
    """The registry sends us to a signed URL; when that has expired, the registry is asked for another one."""
    signatures: list[str] = []

    def serve(asked: Asked) -> Behaviour:
        if asked.path != f"/signed?{signatures[-1]}" or len(signatures) == 2:
            return Behaviour(status=403, body=b"<Error>Request has expired</Error>")
        return Behaviour(cut=3 * MIB) if len(signatures) == 1 else FINE

    with BlobHost(CONTENT, serve) as cdn:

        def send_away(asked: Asked) -> Behaviour:
            signatures.append(f"signature={asked.number}")
            return Behaviour(status=307, headers={"Location": f"http://{cdn.host}/signed?{signatures[-1]}"})

        with BlobHost(b"", send_away) as registry:
            async with fetching(registry, files) as fetcher:
                await fetcher.fetch(blob_of())
    assert stored(files, blob_of()) == CONTENT
    assert len(signatures) == 3
    assert [asked.start for asked in cdn.asked] == [None, 3 * MIB, 3 * MIB]


@pytest.mark.parametrize(
    "content_range",
    [
        pytest.param(f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}", id="another start"),
        pytest.param(f"bytes {2 * MIB}-{len(CONTENT) - 1}/{len(CONTENT) + 1}", id="another total"),
        pytest.param(f"bytes {2 * MIB}-{len(CONTENT)}/{len(CONTENT)}", id="beyond the end"),
        pytest.param(f"bytes {2 * MIB}-{2 * MIB - 1}/*", id="nothing"),
        pytest.param("items 1-2/3", id="no bytes"),
        pytest.param(None, id="absent"),
    ],
)
async def test_another_range_is_refused(files: LayoutFiles, content_range: str | None) -> None:
    """Bytes that may belong elsewhere are not read."""

    def behave(asked: Asked) -> Behaviour:
        return Behaviour(cut=2 * MIB) if asked.number == 0 else Behaviour(headers={"Content-Range": content_range})

    with BlobHost(CONTENT, behave) as host:
        async with fetching(host, files) as fetcher:
            with pytest.raises((BadAnswer, SizeInvalid)):
                await fetcher.fetch(blob_of())
    assert len(host.asked) == 2
    assert stored(files, blob_of()) is None


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(Behaviour(content=CONTENT + b"x"), id="longer"),
        pytest.param(Behaviour(content=CONTENT + b"x", headers={"Content-Length": None}), id="longer, unsaid"),
        pytest.param(Behaviour(content=CONTENT[:-1]), id="shorter"),
    ],
)
async def test_another_size_is_refused(files: LayoutFiles, behaviour: Behaviour) -> None:
    """Where the length is said, before the first byte."""
    with BlobHost(CONTENT, lambda asked: behaviour) as host:
        async with fetching(host, files) as fetcher:
            with pytest.raises(SizeInvalid, match="promised"):
                await fetcher.fetch(blob_of())
    assert len(host.asked) == 1
    assert stored(files, blob_of()) is None


async def test_a_body_that_ends_early_is_not_the_blob(files: LayoutFiles) -> None:
    """Without a length its end is the connection's end, which is believed no more than any other."""
    behaviour = Behaviour(content=CONTENT[:-1], headers={"Content-Length": None, "Content-Range": None}, whole=True)
    with BlobHost(CONTENT, lambda asked: behaviour) as host:
        async with fetching(host, files) as fetcher:
            with pytest.raises(OciError, match="early"):
                await fetcher.fetch(blob_of())
    assert stored(files, blob_of()) is None


async def test_wrong_bytes_never_appear(files: LayoutFiles) -> None:
    """Whole and of the right size, but not the blob: refused, and not kept for the next run."""
    wrong = b"\0" + CONTENT[1:]
    with BlobHost(wrong) as host:
        async with fetching(host, files) as fetcher:
            with pytest.raises(DigestMismatch):
                await fetcher.fetch(blob_of())
    assert stored(files, blob_of()) is None
    assert left(files) == []
    assert len(host.asked) == 1


async def test_what_was_left_damaged_is_fetched_anew(files: LayoutFiles) -> None:
    """Once; those who had read of it are told to begin again."""
    ingest = Ingest.claim(files, blob_of())
    assert ingest is not None
    ingest.write(0, memoryview(bytes(2 * MIB)))
    ingest.close()
    begun, over = threading.Event(), threading.Event()
    with BlobHost(CONTENT, lambda asked: Behaviour(before=lambda: _come(begun))) as host:
        async with fetching(host, files) as fetcher:
            reading = asyncio.create_task(asyncio.to_thread(_read_late, fetcher.follow(blob_of()), begun, over))
            done = await fetcher.fetch(blob_of())
            over.set()
            with pytest.raises(Restarted):
                await reading
            assert await asyncio.to_thread(lambda: read_all(fetcher.follow(blob_of()))) == CONTENT
    assert done.source == "full"
    assert [asked.start for asked in host.asked] == [2 * MIB, None]


def _come(event: threading.Event) -> None:
    assert event.wait(60)


def _read_late(opened: Callable[[], BinaryIO], begun: threading.Event, over: threading.Event) -> None:
    """Begins to read before anything else comes, and goes on when all is over."""
    with opened() as file:
        assert file.read(64 * 1024)
        begun.set()
        _come(over)
        file.read(64 * 1024)


async def test_what_lies_beyond_the_end_is_cut_off(files: LayoutFiles) -> None:
    """An earlier manifest promised more bytes under the same digest; the blob has no byte of them."""
    ingest = Ingest.claim(files, Descriptor(OCTET_STREAM, blob_of().digest, 2 * len(CONTENT)))
    assert ingest is not None
    ingest.write(0, memoryview(CONTENT[:MIB]))
    ingest.write(len(CONTENT), memoryview(b"more"))
    ingest.close()
    with BlobHost(CONTENT) as host:
        async with fetching(host, files) as fetcher:
            done = await fetcher.fetch(blob_of())
    assert (done.source, done.fetched) == ("resumed", len(CONTENT) - MIB)
    assert stored(files, blob_of()) == CONTENT


def test_a_torn_map_is_read_as_far_as_it_goes(files: LayoutFiles) -> None:
    """A line that was cut off, and one that promises what the file does not have, count for nothing."""
    ingest = Ingest.claim(files, blob_of())
    assert ingest is not None
    ingest.write(0, memoryview(CONTENT[:MIB]))
    ingest.close()
    path = files.ingest_path(f"sha256-{blob_of().digest.hex}.map")
    torn = f"{MIB} {3 * MIB}\nnonsense\n{MIB} 20971".encode()
    Path(path).write_bytes(Path(path).read_bytes() + torn)
    again = Ingest.claim(files, blob_of())
    assert again is not None
    assert again.gaps() == [(MIB, len(CONTENT))]
    again.close()
