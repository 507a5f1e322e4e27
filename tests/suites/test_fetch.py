"""A fetch brings a blob whatever happens on the way, and never fetches again what has arrived."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

import pytest
from moorage.puller.errors import BadAnswer, RateLimited, Restarted, Stalled, Unreachable
from moorage.puller.events import BlobProgress, Event, Resumed, Retried, Waiting, ignore
from moorage.puller.fetch import adaptive, download
from moorage.puller.fetch.engine import Fetcher
from moorage.puller.fetch.host import Host
from moorage.puller.fetch.ingest import Ingest, held_bytes
from moorage.puller.hosts import HostConfig
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.messages import RetryPolicy, Timeouts
from moorage.puller.remote import RemoteRegistry
from moorage.registry.oci import (
    BlobUnknown,
    Denied,
    Descriptor,
    Digest,
    DigestMismatch,
    OciError,
    RepositoryName,
    SizeInvalid,
)
from moorage.registry.oci.media_types import OCTET_STREAM

from tests.blobhost import FINE, Asked, Behaviour, BlobHost

_MIB = 1024 * 1024
_REPOSITORY = RepositoryName("team/app")
_FAST = RetryPolicy(attempts=4, first_delay=0.01, longest_delay=2.0)
_CONTENT = random.Random(4).randbytes(4 * _MIB)


@cache
def _blob(content: bytes = _CONTENT) -> Descriptor:
    return Descriptor(OCTET_STREAM, Digest.of(content), len(content))


@pytest.fixture
def files(tmp_path: Path) -> LayoutFiles:
    return LayoutFiles(str(tmp_path / "store"), create=True)


@asynccontextmanager
async def fetching(
    host: BlobHost,
    files: LayoutFiles,
    *,
    retry: RetryPolicy = _FAST,
    timeouts: Timeouts | None = None,
    events: list[Event] | None = None,
    state: Host | None = None,
) -> AsyncIterator[Fetcher]:
    """A fetcher of the host's blobs."""
    hosts = HostConfig.empty()
    async with (
        RemoteRegistry.connect(host.host, hosts=hosts, timeouts=timeouts) as registry,
        Fetcher(
            registry,
            _REPOSITORY,
            files,
            retry=retry,
            host=state,
            on_event=ignore if events is None else events.append,
        ) as fetcher,
    ):
        yield fetcher


def _stored(files: LayoutFiles, blob: Descriptor) -> bytes | None:
    try:
        with files.open_blob(blob.digest) as file:
            return file.read()
    except BlobUnknown:
        return None


def _left(files: LayoutFiles) -> list[str]:
    return sorted(name.rpartition(".")[2] for name in os.listdir(os.path.join(files.root, "ingests")))


async def test_a_blob_is_fetched_once(files: LayoutFiles) -> None:
    """One request; the second time it is there; nothing stays in ``ingests``."""
    events: list[Event] = []
    with BlobHost(_CONTENT) as host:
        async with fetching(host, files, events=events) as fetcher:
            first, second = await fetcher.fetch(_blob()), await fetcher.fetch(_blob())
    assert (first.source, first.fetched) == ("full", len(_CONTENT))
    assert (second.source, second.fetched) == ("cached", 0)
    assert _stored(files, _blob()) == _CONTENT
    assert [asked.start for asked in host.asked] == [None]
    assert _left(files) == []
    assert sum(event.size for event in events if isinstance(event, BlobProgress)) == len(_CONTENT)


async def test_an_empty_blob_is_a_blob(files: LayoutFiles) -> None:
    """Nothing has to be asked for it."""
    with BlobHost(b"") as host:
        async with fetching(host, files) as fetcher:
            await fetcher.fetch(_blob(b""))
    assert _stored(files, _blob(b"")) == b""


async def test_readers_follow(files: LayoutFiles) -> None:
    """They read while the blob arrives, from the first byte to the last, and after it is stored."""
    with BlobHost(_CONTENT, lambda asked: Behaviour(rate=30e6)) as host:
        async with fetching(host, files) as fetcher:
            early = fetcher.follow(_blob())
            reading = asyncio.create_task(asyncio.to_thread(lambda: _read(early)))
            await fetcher.fetch(_blob())
            assert await reading == _CONTENT
            assert await asyncio.to_thread(lambda: _read(fetcher.follow(_blob()))) == _CONTENT


def _read(opened: Callable[[], object]) -> bytes:
    with opened() as file:  # type: ignore[attr-defined]
        return b"".join(iter(lambda: file.read(100_000), b""))


@pytest.mark.parametrize("sixteenth", range(16))
async def test_a_cut_connection_costs_nothing_twice(files: LayoutFiles, sixteenth: int) -> None:
    """Cut at each sixteenth of the blob: the fetch goes on at the byte where it broke off."""
    cut = len(_CONTENT) * sixteenth // 16
    with BlobHost(_CONTENT, lambda asked: Behaviour(cut=cut) if asked.number == 0 else FINE) as host:
        events: list[Event] = []
        async with fetching(host, files, events=events) as fetcher:
            done = await fetcher.fetch(_blob())
    assert _stored(files, _blob()) == _CONTENT
    assert done.fetched == host.sent == len(_CONTENT)
    assert [asked.start for asked in host.asked] == [None, cut or None]
    assert len([event for event in events if isinstance(event, Retried)]) == 1


@pytest.mark.parametrize("sixteenth", [1, 5, 9, 15])
async def test_the_next_run_goes_on(files: LayoutFiles, sixteenth: int) -> None:
    """A fetch that failed leaves what it has; another one asks for the rest only."""
    cut = len(_CONTENT) * sixteenth // 16
    with BlobHost(_CONTENT, lambda asked: Behaviour(cut=cut) if asked.number == 0 else FINE) as host:
        async with fetching(host, files, retry=RetryPolicy(attempts=1)) as fetcher:
            with pytest.raises(Unreachable, match="before the end"):
                await fetcher.fetch(_blob())
        assert _stored(files, _blob()) is None
        events: list[Event] = []
        async with fetching(host, files, events=events) as fetcher:
            done = await fetcher.fetch(_blob())
    assert (done.source, done.fetched) == ("resumed", len(_CONTENT) - cut)
    assert Resumed(_blob(), cut) in events
    assert _stored(files, _blob()) == _CONTENT
    assert host.sent == len(_CONTENT)


async def test_a_fetch_that_is_stopped_goes_on_later(files: LayoutFiles) -> None:
    """Cancellation closes the socket, ends the readers, and keeps what has arrived."""
    with BlobHost(_CONTENT, lambda asked: Behaviour(hold=3 * _MIB) if asked.number == 0 else FINE) as host:
        async with fetching(host, files) as fetcher:
            reading = asyncio.create_task(asyncio.to_thread(lambda: _read(fetcher.follow(_blob()))))
            stopped = asyncio.create_task(fetcher.fetch(_blob()))
            await _arrived(files, 2 * _MIB)
            stopped.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopped
            with pytest.raises(Unreachable, match="stopped"):
                await reading
            kept = held_bytes(files, _blob())
            done = await fetcher.fetch(_blob())
    assert kept >= 2 * _MIB
    assert (done.source, done.fetched) == ("resumed", len(_CONTENT) - kept)
    assert _stored(files, _blob()) == _CONTENT


_CHILD = """
import asyncio, sys
from moorage.puller.fetch.engine import Fetcher
from moorage.puller.hosts import HostConfig
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.remote import RemoteRegistry
from moorage.registry.oci import Descriptor, Digest, RepositoryName
host, root, digest, size = sys.argv[1:]
async def main():
    async with RemoteRegistry.connect(host, hosts=HostConfig.empty()) as registry:
        async with Fetcher(registry, RepositoryName("team/app"), LayoutFiles(root, create=True)) as fetcher:
            await fetcher.fetch(Descriptor("application/octet-stream", Digest.parse(digest), int(size)))
asyncio.run(main())
"""


def _child(host: BlobHost, files: LayoutFiles) -> subprocess.Popen[bytes]:
    blob = _blob()
    return subprocess.Popen([sys.executable, "-c", _CHILD, host.host, files.root, str(blob.digest), str(blob.size)])


async def _until(host: BlobHost, sent: int) -> None:
    async with asyncio.timeout(30):
        while host.sent < sent:  # noqa: ASYNC110 (the host's threads know no event of ours)
            await asyncio.sleep(0.005)


async def _arrived(files: LayoutFiles, size: int) -> None:
    """Waits until so many bytes are kept, whatever else still lies between the host and the file."""
    async with asyncio.timeout(60):
        while held_bytes(files, _blob()) < size:  # noqa: ASYNC110 (another process knows no event of ours)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("sent", [100_000, 1 * _MIB + 17, 3 * _MIB])
async def test_a_killed_fetch_refetches_a_chunk_at_most(files: LayoutFiles, sent: int) -> None:
    """``kill -9``: what the client had received is not sent again, but for one chunk that it had in hand."""
    with BlobHost(_CONTENT, lambda asked: Behaviour(hold=sent) if asked.number == 0 else FINE) as host:
        child = _child(host, files)
        await _until(host, sent)
        await _arrived(files, sent - _MIB)
        child.send_signal(signal.SIGKILL)
        await asyncio.to_thread(child.wait)
        kept = held_bytes(files, _blob())
        async with fetching(host, files) as fetcher:
            done = await fetcher.fetch(_blob())
    assert _stored(files, _blob()) == _CONTENT
    assert kept >= sent - _MIB
    assert done.fetched == len(_CONTENT) - kept


async def test_two_processes_share_a_download(files: LayoutFiles) -> None:
    """The second waits for the first, says so, and asks the registry for nothing."""
    with BlobHost(_CONTENT, lambda asked: Behaviour(rate=4e6)) as host:
        child = _child(host, files)
        await _until(host, 1)
        events: list[Event] = []
        async with fetching(host, LayoutFiles(files.root), events=events) as fetcher:
            done = await fetcher.fetch(_blob())
        assert await asyncio.to_thread(child.wait) == 0
    assert (done.source, done.fetched) == ("shared", 0)
    assert any(isinstance(event, Waiting) for event in events)
    assert host.sent == len(_CONTENT)
    assert _left(files) == []


async def test_the_second_takes_over_from_the_dead(files: LayoutFiles) -> None:
    """It goes on where the first was killed."""
    with BlobHost(_CONTENT, lambda asked: Behaviour(hold=2 * _MIB) if asked.number == 0 else FINE) as host:
        child = _child(host, files)
        await _arrived(files, _MIB)
        async with fetching(host, LayoutFiles(files.root)) as fetcher:
            waiting = asyncio.create_task(fetcher.fetch(_blob()))
            await asyncio.sleep(0.1)
            child.kill()
            done = await waiting
        await asyncio.to_thread(child.wait)
    assert done.source == "resumed"
    assert host.sent <= len(_CONTENT) + _MIB
    assert _stored(files, _blob()) == _CONTENT


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pace of the adaptive width, ten times faster."""
    monkeypatch.setattr(adaptive, "_SETTLE", 0.03)
    monkeypatch.setattr(adaptive, "_MEASURE", 0.05)
    monkeypatch.setattr(download, "_TICK", 0.01)


@pytest.mark.usefixtures("_impatient")
async def test_a_slow_line_gets_more_connections(files: LayoutFiles) -> None:
    """Each carries little, so more are used, and each byte comes once but for what a cut connection had under way."""
    content = random.Random(5).randbytes(24 * _MIB)
    with BlobHost(content, lambda asked: Behaviour(rate=15e6)) as host:
        async with fetching(host, files) as fetcher:
            done = await fetcher.fetch(_blob(content))
    assert _stored(files, _blob(content)) == content
    assert done.source == "ranged"
    assert done.fetched <= len(content) + 2 * _MIB
    assert host.busiest > 1


@pytest.mark.usefixtures("_impatient")
async def test_a_host_without_ranges_is_asked_for_all(files: LayoutFiles) -> None:
    """It answers 200 to a range: one connection brings everything, and nothing is read only to be thrown away."""
    content = random.Random(6).randbytes(24 * _MIB)
    with BlobHost(content, lambda asked: Behaviour(rate=40e6, whole=True)) as host:
        async with fetching(host, files, state=(state := Host())) as fetcher:
            done = await fetcher.fetch(_blob(content))
    assert _stored(files, _blob(content)) == content
    assert not state.gives_ranges
    assert done.fetched <= len(content) + 4 * _MIB
    assert any(asked.start is not None for asked in host.asked)  # it was tried


async def test_a_resumed_fetch_survives_a_host_without_ranges(files: LayoutFiles) -> None:
    """The whole blob comes in the answer to the range; that is remembered for the next blob."""
    cut = len(_CONTENT) // 2
    with BlobHost(_CONTENT, lambda asked: Behaviour(cut=cut if asked.number == 0 else None, whole=True)) as host:
        async with fetching(host, files) as fetcher:
            done = await fetcher.fetch(_blob())
            assert _stored(files, _blob()) == _CONTENT
    assert done.fetched == cut + len(_CONTENT)
    assert [asked.start for asked in host.asked] == [None, cut]


async def test_several_gaps_take_one_whole_answer(files: LayoutFiles) -> None:
    """What ranges had brought before stays, and one answer fills all that is missing."""
    ingest = Ingest.claim(files, _blob())
    assert ingest is not None
    ingest.write(_MIB, memoryview(_CONTENT[_MIB : 2 * _MIB]))
    ingest.close()
    state = Host()
    state.gives_ranges = False
    with BlobHost(_CONTENT) as host:
        async with fetching(host, files, state=state) as fetcher:
            await fetcher.fetch(_blob())
    assert _stored(files, _blob()) == _CONTENT
    assert [asked.start for asked in host.asked] == [None]


async def test_a_host_without_ranges_is_not_asked_for_ever(files: LayoutFiles) -> None:
    """Starting over costs everything each time, so progress does not renew the patience."""
    with BlobHost(_CONTENT, lambda asked: Behaviour(cut=3 * _MIB, whole=True)) as host:
        async with fetching(host, files) as fetcher:
            with pytest.raises(Unreachable):
                await fetcher.fetch(_blob())
    assert len(host.asked) <= _FAST.attempts + 1


async def test_416_means_whole(files: LayoutFiles) -> None:
    """Some hosts refuse ranges like this."""
    cut = 3 * _MIB

    def behave(asked: Asked) -> Behaviour:
        return Behaviour(cut=cut) if asked.number == 0 else Behaviour(status=416) if asked.start is not None else FINE

    with BlobHost(_CONTENT, behave) as host:
        async with fetching(host, files) as fetcher:
            await fetcher.fetch(_blob())
    assert _stored(files, _blob()) == _CONTENT
    assert [asked.start for asked in host.asked] == [None, cut, None]


async def test_retry_after_is_honoured(files: LayoutFiles) -> None:
    """429 with a wait that we have the patience for."""
    busy = Behaviour(status=429, headers={"Retry-After": "1"})
    with BlobHost(_CONTENT, lambda asked: busy if asked.number == 0 else FINE) as host:
        began, events = time.monotonic(), list[Event]()
        async with fetching(host, files, events=events) as fetcher:
            await fetcher.fetch(_blob())
    assert time.monotonic() - began >= 1.0
    assert [event.delay >= 1.0 for event in events if isinstance(event, Retried)] == [True]


async def test_a_wait_that_is_too_long_is_an_error(files: LayoutFiles) -> None:
    """It names the limit and what the registry asks for."""
    with BlobHost(_CONTENT, lambda asked: Behaviour(status=429, headers={"Retry-After": "3600"})) as host:
        async with fetching(host, files) as fetcher:
            with pytest.raises(RateLimited, match="429") as caught:
                await fetcher.fetch(_blob())
    assert caught.value.retry_after == 3600.0
    assert len(host.asked) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
async def test_what_passes_is_asked_again(files: LayoutFiles, status: int) -> None:
    """A few times."""
    with BlobHost(_CONTENT, lambda asked: Behaviour(status=status) if asked.number < 3 else FINE) as host:
        async with fetching(host, files) as fetcher:
            await fetcher.fetch(_blob())
    assert len(host.asked) == 4


@pytest.mark.parametrize(("status", "error"), [(404, BlobUnknown), (403, Denied)])
async def test_a_refusal_is_final(files: LayoutFiles, status: int, error: type[OciError]) -> None:
    """The registry's own words, at once."""
    words = b'{"errors":[{"code":"X","message":"not for you"}]}'
    with BlobHost(_CONTENT, lambda asked: Behaviour(status=status, body=words)) as host:
        async with fetching(host, files) as fetcher:
            with pytest.raises(error, match="not for you"):
                await fetcher.fetch(_blob())
    assert len(host.asked) == 1


async def test_a_trickle_is_a_stall(files: LayoutFiles) -> None:
    """Bytes that keep coming, too few of them, do not count as life."""
    timeouts = Timeouts(stall=0.3, stall_size=32 * 1024)
    with BlobHost(_CONTENT, lambda asked: Behaviour(rate=2000.0)) as host:
        async with fetching(host, files, timeouts=timeouts, retry=RetryPolicy(attempts=2, first_delay=0.01)) as fetcher:
            began = time.monotonic()
            with pytest.raises(Stalled):
                await fetcher.fetch(_blob())
    assert time.monotonic() - began < len(_CONTENT) / 2000.0 / 2  # all of it would take twice as long


async def test_silence_is_a_stall(files: LayoutFiles) -> None:
    """After the headers nothing comes; the next connection is better."""
    timeouts = Timeouts(stall=0.3)
    with BlobHost(_CONTENT, lambda asked: Behaviour(rate=0.5) if asked.number == 0 else FINE) as host:
        async with fetching(host, files, timeouts=timeouts) as fetcher:
            await fetcher.fetch(_blob())
    assert len(host.asked) == 2


async def test_an_expired_redirect_is_resolved_again(files: LayoutFiles) -> None:
    """The registry sends us to a signed URL; when that has expired, the registry is asked for another one."""
    signatures: list[str] = []

    def serve(asked: Asked) -> Behaviour:
        if asked.path != f"/signed?{signatures[-1]}" or len(signatures) == 2:
            return Behaviour(status=403, body=b"<Error>Request has expired</Error>")
        return Behaviour(cut=3 * _MIB) if len(signatures) == 1 else FINE

    with BlobHost(_CONTENT, serve) as cdn:

        def send_away(asked: Asked) -> Behaviour:
            signatures.append(f"signature={asked.number}")
            return Behaviour(status=307, headers={"Location": f"http://{cdn.host}/signed?{signatures[-1]}"})

        with BlobHost(b"", send_away) as registry:
            async with fetching(registry, files) as fetcher:
                await fetcher.fetch(_blob())
    assert _stored(files, _blob()) == _CONTENT
    assert len(signatures) == 3
    assert [asked.start for asked in cdn.asked] == [None, 3 * _MIB, 3 * _MIB]


@pytest.mark.parametrize(
    "content_range",
    [
        pytest.param(f"bytes 0-{len(_CONTENT) - 1}/{len(_CONTENT)}", id="another start"),
        pytest.param(f"bytes {2 * _MIB}-{len(_CONTENT) - 1}/{len(_CONTENT) + 1}", id="another total"),
        pytest.param(f"bytes {2 * _MIB}-{len(_CONTENT)}/{len(_CONTENT)}", id="beyond the end"),
        pytest.param(f"bytes {2 * _MIB}-{2 * _MIB - 1}/*", id="nothing"),
        pytest.param("items 1-2/3", id="no bytes"),
        pytest.param(None, id="absent"),
    ],
)
async def test_another_range_is_refused(files: LayoutFiles, content_range: str | None) -> None:
    """Bytes that may belong elsewhere are not read."""

    def behave(asked: Asked) -> Behaviour:
        return Behaviour(cut=2 * _MIB) if asked.number == 0 else Behaviour(headers={"Content-Range": content_range})

    with BlobHost(_CONTENT, behave) as host:
        async with fetching(host, files) as fetcher:
            with pytest.raises((BadAnswer, SizeInvalid)):
                await fetcher.fetch(_blob())
    assert len(host.asked) == 2
    assert _stored(files, _blob()) is None


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(Behaviour(content=_CONTENT + b"x"), id="longer"),
        pytest.param(Behaviour(content=_CONTENT + b"x", headers={"Content-Length": None}), id="longer, unsaid"),
        pytest.param(Behaviour(content=_CONTENT[:-1]), id="shorter"),
    ],
)
async def test_another_size_is_refused(files: LayoutFiles, behaviour: Behaviour) -> None:
    """Where the length is said, before the first byte."""
    with BlobHost(_CONTENT, lambda asked: behaviour) as host:
        async with fetching(host, files) as fetcher:
            with pytest.raises(SizeInvalid, match="promised"):
                await fetcher.fetch(_blob())
    assert len(host.asked) == 1
    assert _stored(files, _blob()) is None


async def test_a_body_that_ends_early_is_not_the_blob(files: LayoutFiles) -> None:
    """Without a length its end is the connection's end, which is believed no more than any other."""
    behaviour = Behaviour(content=_CONTENT[:-1], headers={"Content-Length": None, "Content-Range": None}, whole=True)
    with BlobHost(_CONTENT, lambda asked: behaviour) as host:
        async with fetching(host, files) as fetcher:
            with pytest.raises(OciError, match="early"):
                await fetcher.fetch(_blob())
    assert _stored(files, _blob()) is None


async def test_wrong_bytes_never_appear(files: LayoutFiles) -> None:
    """Whole and of the right size, but not the blob: refused, and not kept for the next run."""
    wrong = b"\0" + _CONTENT[1:]
    with BlobHost(wrong) as host:
        async with fetching(host, files) as fetcher:
            with pytest.raises(DigestMismatch):
                await fetcher.fetch(_blob())
    assert _stored(files, _blob()) is None
    assert _left(files) == []
    assert len(host.asked) == 1


async def test_what_was_left_damaged_is_fetched_anew(files: LayoutFiles) -> None:
    """Once; those who had read of it are told to begin again."""
    ingest = Ingest.claim(files, _blob())
    assert ingest is not None
    ingest.write(0, memoryview(bytes(2 * _MIB)))
    ingest.close()
    begun, over = threading.Event(), threading.Event()
    with BlobHost(_CONTENT, lambda asked: Behaviour(before=lambda: _come(begun))) as host:
        async with fetching(host, files) as fetcher:
            reading = asyncio.create_task(asyncio.to_thread(_read_late, fetcher.follow(_blob()), begun, over))
            done = await fetcher.fetch(_blob())
            over.set()
            with pytest.raises(Restarted):
                await reading
            assert await asyncio.to_thread(lambda: _read(fetcher.follow(_blob()))) == _CONTENT
    assert done.source == "full"
    assert [asked.start for asked in host.asked] == [2 * _MIB, None]


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
    ingest = Ingest.claim(files, Descriptor(OCTET_STREAM, _blob().digest, 2 * len(_CONTENT)))
    assert ingest is not None
    ingest.write(0, memoryview(_CONTENT[:_MIB]))
    ingest.write(len(_CONTENT), memoryview(b"more"))
    ingest.close()
    with BlobHost(_CONTENT) as host:
        async with fetching(host, files) as fetcher:
            done = await fetcher.fetch(_blob())
    assert (done.source, done.fetched) == ("resumed", len(_CONTENT) - _MIB)
    assert _stored(files, _blob()) == _CONTENT


def test_a_torn_map_is_read_as_far_as_it_goes(files: LayoutFiles) -> None:
    """A line that was cut off, and one that promises what the file does not have, count for nothing."""
    ingest = Ingest.claim(files, _blob())
    assert ingest is not None
    ingest.write(0, memoryview(_CONTENT[:_MIB]))
    ingest.close()
    path = files.ingest_path(f"sha256-{_blob().digest.hex}.map")
    torn = f"{_MIB} {3 * _MIB}\nnonsense\n{_MIB} 20971".encode()
    Path(path).write_bytes(Path(path).read_bytes() + torn)
    again = Ingest.claim(files, _blob())
    assert again is not None
    assert again.gaps() == [(_MIB, len(_CONTENT))]
    again.close()
