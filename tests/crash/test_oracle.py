"""The judgement can fail: a store that forgets to sync is found out, within a few cuts."""

from __future__ import annotations

import pytest
from moorage.storage_backends.durability import Disk

from tests.crash.lives import REGISTRY, STORE, Kind, cut
from tests.crash.volume import SYSTEMS

pytestmark = [pytest.mark.crash, pytest.mark.root, pytest.mark.timeout(600)]

CUTS = 60


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
    """The same operations, the same cuts, the same judgement: now it complains."""
    assert cut(kind, system, CUTS, seed=1, disk=disk) != []
