"""Killed processes: nothing that was acknowledged is lost, an upload stands where its writer was told (promise M7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.lives import REGISTRY, STORE, Kind, count, kill

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("kind", [pytest.param(STORE, id="store"), pytest.param(REGISTRY, id="registry")])
def test_f1_kills(kind: Kind, tmp_path: Path) -> None:
    """Two processes work at once and are killed at random moments, whatever they are at."""
    complaints = kill(kind, tmp_path, count("MOORAGE_KILLS", 500, 100), seed=1)
    assert not complaints, "\n".join(complaints)
