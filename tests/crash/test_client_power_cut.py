"""Power cuts under a pull: nothing waits for the disk, and yet nothing that the disk lost is ever trusted."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from moorage.puller import unsynced
from moorage.puller.store import Store

from tests.crash.client_life import Clients, judge, run
from tests.crash.lives import count
from tests.crash.scene import IMAGES, scene
from tests.crash.volume import SYSTEMS, Volume

pytestmark = [pytest.mark.crash, pytest.mark.root, pytest.mark.timeout(3600)]

_LIVES = 10
"""Cuts after which a new file system begins."""

_LONGEST = 1.5
"""Seconds that a life lasts at most."""


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_store_outlives_power_cuts(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next pulls make everything whole, whatever was lost; a cut is another boot."""
    cuts = count("MOORAGE_CUTS", 100, 20)
    with scene(tmp_path) as here:
        for start in range(0, cuts, _LIVES):
            with Volume(system) as volume:
                for number in range(start, min(cuts, start + _LIVES)):
                    story = f"{system}-{number}"
                    monkeypatch.setattr(unsynced, "boot_id", lambda boot=story: boot)
                    clients = Clients(here, volume.root, tmp_path, [f"{story}-{one}" for one in range(2)])
                    time.sleep(random.Random(story).uniform(0, _LONGEST))
                    volume.cut()
                    clients.kill()  # what they complain about is that nothing works without power
                    volume.unmount()
                    volume.mount()
                    monkeypatch.setattr(unsynced, "boot_id", lambda boot=story: f"after {boot}")
                    complaints = _judge(here.host, volume.root, story)
                    assert not complaints, f"{story}: " + "\n".join(complaints)


def _judge(host: str, root: Path, story: str) -> list[str]:
    """Complaints after all images were pulled again."""
    os.environ["MOORAGE_STORE"] = str(root)
    pulls = [run("pull", f"{host}/{name}") for name in IMAGES]
    lost = [str(defect) for defect in Store(str(root)).verify().defects]
    return [*filter(None, pulls), *lost, *judge(host, root, story)]
