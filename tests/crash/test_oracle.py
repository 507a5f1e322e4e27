"""The judgement can fail: a store that forgets to sync is found out, within a few cuts."""

from __future__ import annotations

import os

import pytest
from moorage.storage_backends.durability import Disk

from tests.crash.lives import REGISTRY, STORE, Kind, cut
from tests.crash.volume import SYSTEMS, Volume

pytestmark = [pytest.mark.crash, pytest.mark.root, pytest.mark.timeout(3600)]

CUTS = 1000
"""Ten or so are enough as a rule, and 23 were seen; the first complaint ends it."""


class ForgetsDirectories(Disk):
    """Names are never synced."""

    def sync_directory(self, path: str) -> None:
        """Does nothing."""


class ForgetsFiles(Disk):
    """Bytes are never synced."""

    def sync_file(self, fd: int) -> None:
        """Does nothing."""

    def sync_data(self, fd: int) -> None:
        """Does nothing."""


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("kind", [pytest.param(STORE, id="store"), pytest.param(REGISTRY, id="registry")])
@pytest.mark.parametrize("disk", [ForgetsDirectories, ForgetsFiles])
def test_a_forgetful_store_is_caught(kind: Kind, system: str, disk: type[Disk]) -> None:
    """The same operations, the same cuts, the same judgement: now it complains.

    One worker alone: with many, what one forgets to sync is synced by the next, who writes through the same log.
    """
    assert cut(kind, system, CUTS, seed=1, disk=disk, crowd=1) != []


def test_a_lost_directory_is_not_called_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """When xfs shuts down, its own ``fsync`` of an open directory still succeeds; ours does not."""
    sync = os.fsync
    with Volume("xfs") as volume:
        volume.root.mkdir()
        (volume.root / "lost").touch()

        def sync_without_power(fd: int) -> None:
            volume.cut()
            sync(fd)

        monkeypatch.setattr(os, "fsync", sync_without_power)
        with pytest.raises(OSError, match="Input/output"):
            Disk().sync_directory(str(volume.root))
