"""Killed processes: nothing that was acknowledged is lost, an upload stands where its writer was told (promise M7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.lives import count, kill_stores

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1800)]


def test_f1_a_store_survives_kills(tmp_path: Path) -> None:
    """Objects and uploads, written by two processes at once that are killed at random moments."""
    assert kill_stores(tmp_path, count("MOORAGE_KILLS", 500, 100), seed=1) == []
