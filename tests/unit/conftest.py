"""The fixtures that several modules of unit tests share: a key ring, who signs and verifies with it, and a forger."""

from __future__ import annotations

from pathlib import Path

import pytest
from moorage.auth.keys import KeyRing
from moorage.auth.tokens import TokenSigner, TokenVerifier

from tests.forge import Forger
from tests.signed import CLAIMS, ISSUER, SERVICE, Clock


@pytest.fixture
def clock() -> Clock:
    """Stands at the time of ``CLAIMS``."""
    return Clock()


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    """Keys of our own."""
    return KeyRing.create(str(tmp_path / "key"))


@pytest.fixture
def signer(ring: KeyRing, clock: Clock) -> TokenSigner:
    """Signs with them."""
    return TokenSigner(ring, issuer=ISSUER, service=SERVICE, clock=clock)


@pytest.fixture
def verifier(ring: KeyRing, clock: Clock) -> TokenVerifier:
    """Believes what they signed."""
    return TokenVerifier(ring, issuer=ISSUER, service=SERVICE, clock=clock)


@pytest.fixture
def ours(ring: KeyRing) -> Forger:
    """Whoever has our key: its tokens differ from ours only in what a test says."""
    key = ring.current().signing
    return Forger(key.private, {"typ": "JWT", "alg": key.algorithm, "kid": key.kid}, CLAIMS)
