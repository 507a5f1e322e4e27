"""Power cuts: what was acknowledged is there, whole; what was not is there, whole, or is not (promises M1 and M7)."""

from __future__ import annotations

import pytest

from tests.crash.lives import count, cut_stores
from tests.crash.volume import KINDS

pytestmark = [pytest.mark.crash, pytest.mark.root, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("kind", KINDS)
def test_f2_a_store_survives_power_cuts(kind: str) -> None:
    """Objects and uploads, written by two processes at once, cut at random moments."""
    assert cut_stores(kind, count("MOORAGE_CUTS", 200, 40), seed=1) == []
