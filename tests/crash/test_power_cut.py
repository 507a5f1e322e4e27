"""Power cuts: what was acknowledged is there, whole; what was not is there, whole, or is not (promises M1 and M7)."""

from __future__ import annotations

import pytest

from tests.crash.lives import REGISTRY, STORE, Kind, count, cut
from tests.crash.volume import SYSTEMS

pytestmark = [pytest.mark.crash, pytest.mark.root, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("kind", [pytest.param(STORE, id="store"), pytest.param(REGISTRY, id="registry")])
def test_f2_power_cuts(kind: Kind, system: str) -> None:
    """Two processes work at once and are cut at random moments; nobody repairs anything before they work again."""
    complaints = cut(kind, system, count("MOORAGE_CUTS", 200, 40), seed=1)
    assert not complaints, "\n".join(complaints)
