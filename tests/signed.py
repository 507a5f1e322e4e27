"""Tokens as tests have them: claims, time and certificates. The fixtures for them are in ``tests/unit/conftest.py``."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from moorage.auth.errors import InvalidToken
from moorage.auth.scope import Scope
from moorage.auth.tokens import TokenVerifier

__all__ = [
    "CLAIMS",
    "ISSUER",
    "NOW",
    "SCOPE",
    "SERVICE",
    "Clock",
    "certificate_of",
    "reason_of",
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
