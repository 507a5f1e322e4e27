"""A key ring, who signs and who verifies with it, and a forger who has the key: what tests of tokens share."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from moorage.auth.errors import InvalidToken
from moorage.auth.keys import KeyRing
from moorage.auth.scope import Scope
from moorage.auth.tokens import TokenSigner, TokenVerifier

from tests.forge import Forger

__all__ = [
    "CLAIMS",
    "ISSUER",
    "NOW",
    "SCOPE",
    "SERVICE",
    "Clock",
    "certificate_of",
    "clock",
    "ours",
    "reason_of",
    "ring",
    "signer",
    "verifier",
]

NOW = 1_800_000_000
ISSUER, SERVICE = "moorage", "registry.example.org"
SCOPE = Scope.parse("repository:a/b:pull,push")
CLAIMS = {
    "iss": ISSUER,
    "sub": "alice",
    "aud": SERVICE,
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 300,
    "jti": "one",
    "access": [{"type": "repository", "name": "a/b", "actions": ["pull", "push"]}],
}


class Clock:
    """Stands until it is moved; seconds since 1970."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing.create(str(tmp_path / "key"))


@pytest.fixture
def signer(ring: KeyRing, clock: Clock) -> TokenSigner:
    return TokenSigner(ring, issuer=ISSUER, service=SERVICE, clock=clock)


@pytest.fixture
def verifier(ring: KeyRing, clock: Clock) -> TokenVerifier:
    return TokenVerifier(ring, issuer=ISSUER, service=SERVICE, clock=clock)


@pytest.fixture
def ours(ring: KeyRing) -> Forger:
    """Whoever has our key: its tokens differ from ours only in what a test says."""
    key = ring.current().signing
    return Forger(key.private, {"typ": "JWT", "alg": key.algorithm, "kid": key.kid}, CLAIMS)


async def reason_of(verifier: TokenVerifier, raw: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        await verifier.verify(raw)
    return caught.value.reason


def certificate_of(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, form: str = "x5c", *, end: int = NOW + 86400
) -> str:
    """A self-signed certificate that holds until ``end``, in seconds since 1970."""
    name, until = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")]), datetime.fromtimestamp(end, UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(until - timedelta(days=400)).not_valid_after(until)
    signed = builder.sign(key, hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None)
    if form == "pem":
        return signed.public_bytes(Encoding.PEM).decode()
    return base64.b64encode(signed.public_bytes(Encoding.DER)).decode()
