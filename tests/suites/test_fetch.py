"""A fetch brings a blob whatever happens on the way, and never fetches again what has arrived."""

from __future__ import annotations

import asyncio
import random
import signal

import pytest
from moorage.puller.errors import Unreachable
from moorage.puller.events import BlobProgress, Event, Resumed, Retried, Waiting
from moorage.puller.fetch import adaptive, download
from moorage.puller.fetch.host import Host
from moorage.puller.fetch.ingest import Ingest, held_bytes
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.messages import RetryPolicy

from tests.blobhost import FINE, Asked, Behaviour, BlobHost
from tests.fetching import CONTENT, FAST, MIB, blob_of, fetching, files, left, read_all, start_fetch, stored

__all__ = ["files"]


async def test_a_blob_is_fetched_once(files: LayoutFiles) -> None:
    """One request; the second time it is there; nothing stays in ``ingests``."""
    events: list[Event] = []
    with BlobHost(CONTENT) as host:
        async with fetching(host, files, events=events) as fetcher:
            first, second = await fetcher.fetch(blob_of()), await fetcher.fetch(blob_of())
    assert (first.source, first.fetched) == ("full", len(CONTENT))
    assert (second.source, second.fetched) == ("cached", 0)
    assert stored(files, blob_of()) == CONTENT
    assert [asked.start for asked in host.asked] == [None]
    assert left(files) == []
    assert sum(event.size for event in events if isinstance(event, BlobProgress)) == len(CONTENT)


async def test_an_empty_blob_is_a_blob(files: LayoutFiles) -> None:
    """Nothing has to be asked for it."""
    with BlobHost(b"") as host:
        async with fetching(host, files) as fetcher:
            await fetcher.fetch(blob_of(b""))
    assert stored(files, blob_of(b"")) == b""


async def test_readers_follow(files: LayoutFiles) -> None:
    """They read while the blob arrives, from the first byte to the last, and after it is stored."""
    with BlobHost(CONTENT, lambda asked: Behaviour(rate=30e6)) as host:
        async with fetching(host, files) as fetcher:
            early = fetcher.follow(blob_of())
            reading = asyncio.create_task(asyncio.to_thread(lambda: read_all(early)))
            await fetcher.fetch(blob_of())
            assert await reading == CONTENT
            assert await asyncio.to_thread(lambda: read_all(fetcher.follow(blob_of()))) == CONTENT


@pytest.mark.parametrize("sixteenth", range(16))
async def test_a_cut_connection_costs_nothing_twice(files: LayoutFiles, sixteenth: int) -> None:
    """Cut at each sixteenth of the blob: the fetch goes on at the byte where it broke off."""
    cut = len(CONTENT) * sixteenth // 16
    with BlobHost(CONTENT, lambda asked: Behaviour(cut=cut) if asked.number == 0 else FINE) as host:
        events: list[Event] = []
        async with fetching(host, files, events=events) as fetcher:
            done = await fetcher.fetch(blob_of())
    assert stored(files, blob_of()) == CONTENT
    assert done.fetched == host.sent == len(CONTENT)
    assert [asked.start for asked in host.asked] == [None, cut or None]
    assert len([event for event in events if isinstance(event, Retried)]) == 1


@pytest.mark.parametrize("sixteenth", [1, 5, 9, 15])
async def test_the_next_run_goes_on(files: LayoutFiles, sixteenth: int) -> None:
    """A fetch that failed leaves what it has; another one asks for the rest only."""
    cut = len(CONTENT) * sixteenth // 16
    with BlobHost(CONTENT, lambda asked: Behaviour(cut=cut) if asked.number == 0 else FINE) as host:
        async with fetching(host, files, retry=RetryPolicy(attempts=1)) as fetcher:
            with pytest.raises(Unreachable, match="before the end"):
                await fetcher.fetch(blob_of())
        assert stored(files, blob_of()) is None
        events: list[Event] = []
        async with fetching(host, files, events=events) as fetcher:
            done = await fetcher.fetch(blob_of())
    assert (done.source, done.fetched) == ("resumed", len(CONTENT) - cut)
    assert Resumed(blob_of(), cut) in events
    assert stored(files, blob_of()) == CONTENT
    assert host.sent == len(CONTENT)


async def test_a_fetch_that_is_stopped_goes_on_later(files: LayoutFiles) -> None:
    """Cancellation closes the socket, ends the readers, and keeps what has arrived."""
    with BlobHost(CONTENT, lambda asked: Behaviour(hold=3 * MIB) if asked.number == 0 else FINE) as host:
        async with fetching(host, files) as fetcher:
            reading = asyncio.create_task(asyncio.to_thread(lambda: read_all(fetcher.follow(blob_of()))))
            stopped = asyncio.create_task(fetcher.fetch(blob_of()))
            await _arrived(files, 2 * MIB)
            stopped.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopped
            with pytest.raises(Unreachable, match="stopped"):
                await reading
            kept = held_bytes(files, blob_of())
            done = await fetcher.fetch(blob_of())
    assert kept >= 2 * MIB
    assert (done.source, done.fetched) == ("resumed", len(CONTENT) - kept)
    assert stored(files, blob_of()) == CONTENT


async def _until(host: BlobHost, sent: int) -> None:
    async with asyncio.timeout(60):
        while host.sent < sent:  # noqa: ASYNC110 (the host's threads know no event of ours)
            await asyncio.sleep(0.005)


async def _arrived(files: LayoutFiles, size: int) -> None:
    """Waits until so many bytes are kept, whatever else still lies between the host and the file."""
    async with asyncio.timeout(60):
        while held_bytes(files, blob_of()) < size:  # noqa: ASYNC110 (another process knows no event of ours)
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("sent", [100_000, 1 * MIB + 17, 3 * MIB])
async def test_a_killed_fetch_refetches_a_chunk_at_most(files: LayoutFiles, sent: int) -> None:
    """``kill -9``: what the client had received is not sent again, but for one chunk that it had in hand."""
    with BlobHost(CONTENT, lambda asked: Behaviour(hold=sent) if asked.number == 0 else FINE) as host:
        child = start_fetch(host, files.root, blob_of())
        await _until(host, sent)
        await _arrived(files, sent - MIB)
        child.send_signal(signal.SIGKILL)
        await asyncio.to_thread(child.wait)
        kept = held_bytes(files, blob_of())
        async with fetching(host, files) as fetcher:
            done = await fetcher.fetch(blob_of())
    assert stored(files, blob_of()) == CONTENT
    assert kept >= sent - MIB
    assert done.fetched == len(CONTENT) - kept


async def test_two_processes_share_a_download(files: LayoutFiles) -> None:
    """The second waits for the first, says so, and asks the registry for nothing."""
    with BlobHost(CONTENT, lambda asked: Behaviour(rate=4e6)) as host:
        child = start_fetch(host, files.root, blob_of())
        await _until(host, 1)
        events: list[Event] = []
        async with fetching(host, LayoutFiles(files.root), events=events) as fetcher:
            done = await fetcher.fetch(blob_of())
        assert await asyncio.to_thread(child.wait) == 0
    assert (done.source, done.fetched) == ("shared", 0)
    assert any(isinstance(event, Waiting) for event in events)
    assert host.sent == len(CONTENT)
    assert left(files) == []


async def test_the_second_takes_over_from_the_dead(files: LayoutFiles) -> None:
    """It goes on where the first was killed."""
    with BlobHost(CONTENT, lambda asked: Behaviour(hold=2 * MIB) if asked.number == 0 else FINE) as host:
        child = start_fetch(host, files.root, blob_of())
        await _arrived(files, MIB)
        async with fetching(host, LayoutFiles(files.root)) as fetcher:
            waiting = asyncio.create_task(fetcher.fetch(blob_of()))
            await asyncio.sleep(0.1)
            child.kill()
            done = await waiting
        await asyncio.to_thread(child.wait)
    assert done.source == "resumed"
    assert host.sent <= len(CONTENT) + MIB
    assert stored(files, blob_of()) == CONTENT


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pace of the adaptive width, ten times faster."""
    monkeypatch.setattr(adaptive, "_SETTLE", 0.03)
    monkeypatch.setattr(adaptive, "_MEASURE", 0.05)
    monkeypatch.setattr(download, "_TICK", 0.01)


@pytest.mark.usefixtures("_impatient")
async def test_a_slow_line_gets_more_connections(files: LayoutFiles) -> None:
    """Each carries little, so more are used, and each byte comes once but for what a cut connection had under way."""
    content = random.Random(5).randbytes(24 * MIB)
    with BlobHost(content, lambda asked: Behaviour(rate=15e6)) as host:
        async with fetching(host, files) as fetcher:
            done = await fetcher.fetch(blob_of(content))
    assert stored(files, blob_of(content)) == content
    assert done.source == "ranged"
    assert done.fetched <= len(content) + 2 * MIB
    assert host.busiest > 1


@pytest.mark.usefixtures("_impatient")
async def test_a_host_without_ranges_is_asked_for_all(files: LayoutFiles) -> None:
    """It answers 200 to a range: one connection brings everything, and nothing is read only to be thrown away."""
    content = random.Random(6).randbytes(24 * MIB)
    with BlobHost(content, lambda asked: Behaviour(rate=40e6, whole=True)) as host:
        async with fetching(host, files, state=(state := Host())) as fetcher:
            done = await fetcher.fetch(blob_of(content))
    assert stored(files, blob_of(content)) == content
    assert not state.gives_ranges
    assert done.fetched <= len(content) + 4 * MIB
    assert any(asked.start is not None for asked in host.asked)  # it was tried


async def test_a_resumed_fetch_survives_a_host_without_ranges(files: LayoutFiles) -> None:
    """The whole blob comes in the answer to the range; that is remembered for the next blob."""
    cut = len(CONTENT) // 2
    with BlobHost(CONTENT, lambda asked: Behaviour(cut=cut if asked.number == 0 else None, whole=True)) as host:
        async with fetching(host, files) as fetcher:
            done = await fetcher.fetch(blob_of())
            assert stored(files, blob_of()) == CONTENT
    assert done.fetched == cut + len(CONTENT)
    assert [asked.start for asked in host.asked] == [None, cut]


async def test_several_gaps_take_one_whole_answer(files: LayoutFiles) -> None:
    """What ranges had brought before stays, and one answer fills all that is missing."""
    ingest = Ingest.claim(files, blob_of())
    assert ingest is not None
    ingest.write(MIB, memoryview(CONTENT[MIB : 2 * MIB]))
    ingest.close()
    state = Host()
    state.gives_ranges = False
    with BlobHost(CONTENT) as host:
        async with fetching(host, files, state=state) as fetcher:
            await fetcher.fetch(blob_of())
    assert stored(files, blob_of()) == CONTENT
    assert [asked.start for asked in host.asked] == [None]


async def test_a_host_without_ranges_is_not_asked_for_ever(files: LayoutFiles) -> None:
    """Starting over costs everything each time, so progress does not renew the patience."""
    with BlobHost(CONTENT, lambda asked: Behaviour(cut=3 * MIB, whole=True)) as host:
        async with fetching(host, files) as fetcher:
            with pytest.raises(Unreachable):
                await fetcher.fetch(blob_of())
    assert len(host.asked) <= FAST.attempts + 1


async def test_416_means_whole(files: LayoutFiles) -> None:
    """Some hosts refuse ranges like this."""
    cut = 3 * MIB

    def behave(asked: Asked) -> Behaviour:
        return Behaviour(cut=cut) if asked.number == 0 else Behaviour(status=416) if asked.start is not None else FINE

    with BlobHost(CONTENT, behave) as host:
        async with fetching(host, files) as fetcher:
            await fetcher.fetch(blob_of())
    assert stored(files, blob_of()) == CONTENT
    assert [asked.start for asked in host.asked] == [None, cut, None]
