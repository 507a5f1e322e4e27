"""Tokens as anybody could write them, made here without the code that reads them: also all the wrong ones."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from moorage.auth.trust import to_jwk

__all__ = ["Forger", "encoded", "forge", "hmac_signer", "jwk_of"]

Signer = Callable[[bytes], bytes]
PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey


def encoded(content: bytes) -> str:
    """Base64 as it stands in tokens."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def forge(header: object, claims: object, sign: Signer) -> str:
    """A token of just these parts; texts stand in it as they are."""
    parts = [part if isinstance(part, str) else json.dumps(part) for part in (header, claims)]
    message = ".".join(encoded(part.encode()) for part in parts)
    return f"{message}.{encoded(sign(message.encode()))}"


def hmac_signer(secret: bytes) -> Signer:
    """Signs with a secret, as HS256 does."""
    return lambda message: hmac.digest(secret, message, "sha256")


def signer_of(private: PrivateKey, algorithm: str) -> Signer:
    """Signs as the algorithm says, with a key of the right kind."""
    match private, algorithm:
        case Ed25519PrivateKey(), _:
            return private.sign
        case EllipticCurvePrivateKey(), _:
            return lambda message: _raw(private.sign(message, ECDSA(SHA256())))
        case RSAPrivateKey(), "PS256":
            pss = padding.PSS(padding.MGF1(SHA256()), 32)
            return lambda message: private.sign(message, pss, SHA256())
        case RSAPrivateKey(), _:
            return lambda message: private.sign(message, padding.PKCS1v15(), SHA256())
    raise ValueError(algorithm)


def jwk_of(private: PrivateKey, **more: str) -> dict[str, str]:
    """The public half of a key, as a JSON Web Key."""
    return {**to_jwk(private.public_key()), **more}


@dataclass(frozen=True, slots=True)
class Forger:
    """Who has a key, and the header and claims of a good token; each call says what is different."""

    private: PrivateKey
    header: Mapping[str, Any]
    claims: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """The token; a value of None leaves a header or a claim out."""
        head = _without_none({**self.header, **(header or {})})
        body = _without_none({**self.claims, **claims})
        return forge(head, body, signer_of(self.private, str(self.header["alg"])))


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _raw(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")
