"""Public keys that are trusted, and which of them a token means.

Law: a key is trusted because the operator's files or an issuer's own address hold it, never because a token shows it
(rule T1): what stands in a token's header (``kid``, ``jwk``, ``x5c``) only selects. The algorithms that a key may be
used with are kept with the key (rule T3); there are no symmetric ones.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias, TypeGuard

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from moorage.auth.errors import InvalidToken

__all__ = ["ALGORITHMS", "KeySet", "PublicKey", "TrustedKey", "base64url", "is_usable", "thumbprint", "to_jwk"]

PublicKey: TypeAlias = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey

ALGORITHMS: Final = ("EdDSA", "ES256", "PS256", "RS256")
"""Every algorithm that is known here; the issuers' configuration names some of them."""

_RSA_BITS: Final = range(2048, 8193)
"""Shorter keys are broken, longer ones are a way to keep us busy."""


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key with the algorithms it may be used with, and the names that tokens may call it by.

    ``good_until``: seconds since 1970; a certificate's key is trusted no longer than the certificate.
    """

    public: PublicKey
    algorithms: frozenset[str]
    names: frozenset[str]
    thumbprint: str
    good_until: float = math.inf

    @classmethod
    def of(
        cls,
        public: PublicKey,
        *,
        algorithms: Collection[str] = ALGORITHMS,
        kid: str = "",
        good_until: float = math.inf,
    ) -> Self:
        """The key as an issuer uses it: also by its thumbprint and the older key id of docker's libtrust."""
        name = thumbprint(public)
        names = {name, _libtrust_id(public)} | ({kid} if kid else set())
        return cls(public, frozenset(algorithms) & _algorithms_of(public), frozenset(names), name, good_until)


@dataclass(frozen=True, slots=True)
class KeySet:
    """All keys of one issuer."""

    keys: tuple[TrustedKey, ...]

    @classmethod
    def of_jwks(cls, document: object, *, algorithms: Collection[str]) -> Self:
        """The usable keys of a JSON Web Key Set; others in it (for encryption, of other curves) are left out.

        Raises:
            ValueError: it is no key set, or none of its keys can be used.
        """
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise ValueError("it is no JSON Web Key Set: there is no list 'keys' in it")  # noqa: TRY004  # not a wrong call
        return cls._usable(key for entry in entries[:_MOST_KEYS] if (key := _read_jwk(entry, algorithms)))

    @classmethod
    def of_certificates(cls, pem: bytes, *, algorithms: Collection[str]) -> Self:
        """The keys of a bundle of certificates, each trusted for itself until its end.

        Raises:
            ValueError: there is no certificate in it, or none whose key can be used.
        """
        try:
            bundle = x509.load_pem_x509_certificates(pem)
        except ValueError:
            raise ValueError("there is no certificate in it, or a damaged one (PEM)") from None
        found = sorted(bundle, key=lambda one: one.not_valid_after_utc)
        keys = ((one.public_key(), one.not_valid_after_utc.timestamp()) for one in found)
        return cls._usable(
            TrustedKey.of(public, algorithms=algorithms, good_until=end) for public, end in keys if is_usable(public)
        )

    @classmethod
    def _usable(cls, keys: Iterable[TrustedKey]) -> Self:
        usable = tuple(key for key in keys if key.algorithms)
        if not usable:
            raise ValueError("it holds no key for the algorithms that are allowed")
        return cls(usable)

    def select(self, header: Mapping[str, Any], algorithm: str) -> TrustedKey:
        """The one key that the header of a token names, for the token's algorithm; of several entries of it the last.

        Raises:
            InvalidToken: it names none of them, or the key is for another algorithm.
        """
        for name in _names_in(header):
            named = [key for key in self.keys if name in key.names]
            fitting = {key.thumbprint: key for key in named if algorithm in key.algorithms}
            if len(fitting) == 1:
                return next(iter(fitting.values()))
            if named:
                raise InvalidToken("algorithm" if not fitting else "key-ambiguous")
        raise InvalidToken("key-unknown")


_MOST_KEYS: Final = 64
"""Keys of a set that are looked at: issuers have two or three."""


def is_usable(public: object) -> TypeGuard[PublicKey]:
    """Whether a key is of a kind that tokens are signed with here, and strong enough."""
    match public:
        case Ed25519PublicKey():
            return True
        case EllipticCurvePublicKey():
            return isinstance(public.curve, SECP256R1)
        case RSAPublicKey():
            return public.key_size in _RSA_BITS and public.public_numbers().e >= 65537
    return False


def to_jwk(public: PublicKey) -> dict[str, str]:
    """The members of a key that its thumbprint is made of (RFC 7638, section 3.2)."""
    match public:
        case Ed25519PublicKey():
            return {"crv": "Ed25519", "kty": "OKP", "x": base64url(public.public_bytes_raw())}
        case EllipticCurvePublicKey():
            point = public.public_numbers()
            return {"crv": "P-256", "kty": "EC", "x": _number(point.x, 32), "y": _number(point.y, 32)}
        case RSAPublicKey():
            numbers = public.public_numbers()
            return {"e": _number(numbers.e), "kty": "RSA", "n": _number(numbers.n)}


def thumbprint(public: PublicKey) -> str:
    """The SHA-256 thumbprint of a key (RFC 7638)."""
    canonical = json.dumps(to_jwk(public), sort_keys=True, separators=(",", ":"))
    return base64url(hashlib.sha256(canonical.encode()).digest())


def base64url(content: bytes) -> str:
    """The content in the alphabet for URLs, without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _libtrust_id(public: PublicKey) -> str:
    """How distribution 2 and its token servers name a key: 240 bits of a hash, as twelve groups of four."""
    encoded = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = base64.b32encode(hashlib.sha256(encoded).digest()[:30]).decode()
    return ":".join(text[start : start + 4] for start in range(0, len(text), 4))


def _algorithms_of(public: PublicKey) -> frozenset[str]:
    match public:
        case Ed25519PublicKey():
            return frozenset({"EdDSA"})
        case EllipticCurvePublicKey():
            return frozenset({"ES256"})
        case RSAPublicKey():
            return frozenset({"PS256", "RS256"})


def _names_in(header: Mapping[str, Any]) -> Iterable[str]:
    """What the header calls its key, most exact first; what is malformed names nothing."""
    kid, chain = header.get("kid"), header.get("x5c")
    if isinstance(kid, str):
        yield kid
    if isinstance(chain, list) and chain and (name := _leaf_name(chain[0])):
        yield name
    if public := _public_of(header.get("jwk")):
        yield thumbprint(public)


def _leaf_name(encoded: object) -> str:
    if not isinstance(encoded, str):
        return ""
    try:
        public = x509.load_der_x509_certificate(base64.b64decode(encoded, validate=True)).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return ""
    return thumbprint(public) if is_usable(public) else ""


def _read_jwk(entry: object, algorithms: Collection[str]) -> TrustedKey | None:
    """The key, if it is for signatures."""
    public = _public_of(entry)
    if public is None or not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    operations, told, kid = entry.get("key_ops", ["verify"]), entry.get("alg"), entry.get("kid")
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    allowed = algorithms if told is None else {told} & set(algorithms) if isinstance(told, str) else ()
    return TrustedKey.of(public, algorithms=allowed, kid=kid if isinstance(kid, str) else "")


def _public_of(jwk: object) -> PublicKey | None:
    try:
        public = _build(jwk) if isinstance(jwk, dict) else None
    except (ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        return None
    return public if is_usable(public) else None


def _build(jwk: Mapping[str, Any]) -> PublicKey | None:
    match jwk.get("kty"), jwk.get("crv"):
        case "OKP", "Ed25519":
            return Ed25519PublicKey.from_public_bytes(_bytes(jwk["x"]))
        case "EC", "P-256":
            return EllipticCurvePublicNumbers(_integer(jwk["x"]), _integer(jwk["y"]), SECP256R1()).public_key()
        case "RSA", _:
            return RSAPublicNumbers(_integer(jwk["e"]), _integer(jwk["n"])).public_key()
    return None


def _bytes(text: object) -> bytes:
    if not isinstance(text, str) or len(text) > _RSA_BITS.stop // 6 + 8:
        raise ValueError("not a number of a key")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _integer(text: object) -> int:
    return int.from_bytes(_bytes(text), "big")


def _number(value: int, size: int = 0) -> str:
    return base64url(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))
