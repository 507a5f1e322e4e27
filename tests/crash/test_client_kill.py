"""Killed clients: the store verifies, the next pull completes, and hardly anything is fetched twice."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from moorage.puller.store import Store

from tests.crash.client_life import Clients, judge
from tests.crash.lives import count
from tests.crash.scene import BIG, LINE_BUFFER, scene

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]

_LIVES = 20
"""Deaths after which a new store begins."""

_LONGEST = 1.2
"""Seconds that a life lasts at most."""


_ALLOWANCE = 2 * (1024 * 1024 + 2 * LINE_BUFFER)
"""Bytes that a death may cost on average: of two layers a buffer that was not noted yet, and what lay in sockets."""


def test_killed_clients_leave_a_sound_store(tmp_path: Path) -> None:
    """Three processes pull, push, pack, prune, remove and tag in one store, and die at random moments."""
    with scene(tmp_path) as here:
        for number in range(count("MOORAGE_KILLS", 300, 60)):
            story = f"client-{number}"
            store = tmp_path / f"store{number // _LIVES}"
            clients = Clients(here, store, tmp_path, [f"{story}-{one}" for one in range(3)])
            time.sleep(random.Random(story).uniform(0, _LONGEST))
            complaints = clients.kill() + judge(here.host, store, story)
            assert not complaints, f"{story}: " + "\n".join(complaints)


def test_killed_pulls_refetch_hardly_anything(tmp_path: Path) -> None:
    """Whatever had arrived is not sent again, but for one piece a connection and what lay in sockets.

    Counted where it is sent: all runs together carry the image once and so much more per death. A life lasts for so
    many bytes, not for a time, in which a busy machine may not even start it.
    """
    died, stories = 0, count("MOORAGE_KILLS", 300, 60) // 20
    with scene(tmp_path) as here:
        for number in range(stories):
            story, store = f"pull-{number}", tmp_path / f"store{number}"
            before, deaths = here.sent(), 0
            while not _is_complete(store, reference := f"{here.host}/{BIG}"):
                end = here.sent() + random.Random(f"{story}-{deaths}").randrange(6_000_000)
                clients = Clients(here, store, tmp_path, [f"{story}-{deaths}"], only=reference)
                while here.sent() <= end and not _is_complete(store, reference):
                    time.sleep(0.01)
                assert clients.kill() == []
                deaths += 1
                assert deaths < 200, "no run gets further than the one before"
            died += deaths
            image = sum(store.stat().st_size for store in (store / "blobs" / "sha256").iterdir())
            sent = here.sent() - before
            assert sent <= image + deaths * _ALLOWANCE, f"{story}: {sent} bytes for {image}, {deaths} deaths"
            assert Store(str(store)).verify().defects == ()
    assert died > stories + 2, "hardly anybody died before the end"


def _is_complete(store: Path, reference: str) -> bool:
    if not (store / "index.json").exists():
        return False
    return any(image.name == reference for image in Store(str(store)).images())
