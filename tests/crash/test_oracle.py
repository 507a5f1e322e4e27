"""The judgement can fail: a store that forgets to sync is found out, within a few cuts."""

from __future__ import annotations

import pytest
from moorage.storage_backends.durability import Disk

from tests.crash.lives import cut_stores
from tests.crash.volume import KINDS

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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("disk", [ForgetsDirectories, ForgetsFiles])
def test_a_forgetful_store_is_caught(kind: str, disk: type[Disk]) -> None:
    """The same operations, the same cuts, the same judgement: now it complains."""
    assert cut_stores(kind, CUTS, seed=1, disk=disk) != []
