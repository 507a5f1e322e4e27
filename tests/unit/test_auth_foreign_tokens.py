"""Tokens across products: certificates that go along with ours, and the keys and claims of other issuers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from moorage.auth.errors import ConfigurationError
from moorage.auth.keys import KeyRing
from moorage.auth.principal import Principal
from moorage.auth.tokens import Grant, TokenIssuer, TokenSigner, TokenVerifier
from moorage.auth.trust import KeySet, TrustedKey, thumbprint

from tests.forge import Forger, encoded, jwk_of
from tests.signed import CLAIMS, ISSUER, NOW, SCOPE, SERVICE, Clock, certificate_of, reason_of


class Keys:
    """An issuer whose keys are known, and which counts how often it is asked."""

    def __init__(self, keys: KeySet) -> None:
        self.keys = keys
        self.asked = 0

    async def find(self, header: Mapping[str, Any], algorithm: str) -> TrustedKey:
        """See ``KeyFinder``."""
        self.asked += 1
        return self.keys.select(header, algorithm)


# Certificates


def _ring_of(path: Path, *keys: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> KeyRing:
    pem = b"".join(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for key in keys)
    path.write_bytes(pem)
    path.chmod(0o600)
    return KeyRing(str(path))


async def test_with_certificates_the_certified_key_signs(tmp_path: Path, clock: Clock) -> None:
    """With ES256, and its certificate goes along; so a key that is not certified yet may already stand in the file."""
    fresh, certified = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ring = _ring_of(tmp_path / "key", fresh, certified)
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(certificate_of(certified, "pem"))
    signer = TokenSigner(ring, issuer=ISSUER, service=SERVICE, certificates=str(bundle), clock=clock)
    token = signer.issue(Principal("alice"), SCOPE, ttl=300).token
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    certificate = x509.load_der_x509_certificate(base64.b64decode(header["x5c"][0]))
    assert (header["alg"], header["kid"]) == ("ES256", thumbprint(certified.public_key()))
    assert certificate.public_key() == certified.public_key()
    verifier = TokenVerifier(ring, issuer=ISSUER, service=SERVICE, clock=clock)
    assert (await verifier.verify(token)).access == SCOPE


def test_certificates_that_are_of_no_use(tmp_path: Path) -> None:
    """Are refused at the start: for other keys, for EdDSA (Debian's docker-registry panics), or none at all."""
    key, edwards = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    bundle = tmp_path / "bundle.pem"

    def refusal(ring: KeyRing) -> str:
        with pytest.raises(ConfigurationError) as caught:
            TokenSigner(ring, issuer="i", service="s", certificates=str(bundle))
        return str(caught.value)

    bundle.write_text("nothing")
    assert "there is no certificate in it" in refusal(_ring_of(tmp_path / "key", key))
    bundle.write_text(certificate_of(edwards, "pem"))
    assert "need a signing key for ES256" in refusal(_ring_of(tmp_path / "key", edwards))
    assert "no certificate of the bundle is for one of the signing keys" in refusal(_ring_of(tmp_path / "key", key))


# Other issuers


def _foreign(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, algorithm: str, **header: Any) -> Forger:
    claims = {**CLAIMS, "iss": "https://tokens.example", "nbf": None}
    return Forger(key, {"typ": "JWT", "alg": algorithm, **header}, claims)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _trusting(ring: KeyRing, clock: Clock, keys: Keys) -> TokenVerifier:
    issuer = TokenIssuer("other", "https://tokens.example", SERVICE, keys)
    return TokenVerifier(ring, issuer=ISSUER, service=SERVICE, issuers=(issuer,), clock=clock)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
async def test_another_issuer(ring: KeyRing, clock: Clock, rsa_key: rsa.RSAPrivateKey, algorithm: str) -> None:
    """Speaks for principals of its own namespace only (T6), without ``nbf``, with the algorithm pinned to the key."""
    jwks = {"keys": [jwk_of(rsa_key, kid="k", alg=algorithm)]}
    verifier = _trusting(ring, clock, Keys(KeySet.of_jwks(jwks, algorithms=("RS256", "PS256"))))
    grant = await verifier.verify(_foreign(rsa_key, algorithm, kid="k")(groups=["admins"]))
    assert grant == Grant(Principal("issuer:other:alice"), SCOPE, NOW + 300, "one", "other")
    wrong = "PS256" if algorithm == "RS256" else "RS256"
    assert await reason_of(verifier, _foreign(rsa_key, wrong, kid="k")()) == "algorithm"
    assert await reason_of(verifier, _foreign(rsa_key, algorithm, kid="k")(iss=ISSUER)) == "key-unknown"
    assert await reason_of(verifier, _foreign(rsa_key, algorithm, kid="k")(nbf=NOW + 60)) == "nbf-future"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        pytest.param({"aud": "elsewhere"}, "aud", id="another audience"),
        pytest.param({"aud": None}, "aud", id="no audience"),
        pytest.param({"exp": NOW - 31}, "expired", id="expired"),
        pytest.param({"exp": None}, "exp", id="never expires"),
        pytest.param({"iat": None}, "iat", id="no iat"),
        pytest.param({"iat": NOW + 31}, "iat-future", id="from the future"),
        pytest.param({"sub": None}, "sub", id="no subject"),
        pytest.param({"sub": 7}, "sub", id="a number"),
        pytest.param({"jti": 7}, "jti", id="jti is a number"),
        pytest.param({"access": "repository:a/b:pull"}, "access", id="access is a text"),
    ],
)
async def test_claims_of_another_issuer(
    ring: KeyRing, clock: Clock, rsa_key: rsa.RSAPrivateKey, wrong: dict[str, Any], reason: str
) -> None:
    """Must hold like ours, but that it may leave out ``nbf`` and ``jti``, and that nobody may have a name."""
    verifier = _trusting(ring, clock, Keys(KeySet.of_jwks({"keys": [jwk_of(rsa_key, kid="k")]}, algorithms=("RS256",))))
    forger = _foreign(rsa_key, "RS256", kid="k")
    assert (await verifier.verify(forger(jti=None, sub=""))).principal == Principal("issuer:other:")
    assert await reason_of(verifier, forger(**wrong)) == reason


@pytest.mark.parametrize("name", ["kid", "libtrust", "x5c"])
async def test_an_issuer_by_certificate(ring: KeyRing, clock: Clock, name: str) -> None:
    """Its tokens may name the key by thumbprint, by docker's older key id, or by the certificate itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    keys = KeySet.of_certificates(certificate_of(key, "pem").encode(), algorithms=("ES256",))
    older = next(one for one in keys.keys[0].names if one.count(":") == 11)
    header: dict[str, dict[str, Any]] = {
        "kid": {"kid": thumbprint(key.public_key())},
        "libtrust": {"kid": older},
        "x5c": {"x5c": [certificate_of(key)]},
    }
    token = _foreign(key, "ES256", **header[name])()
    assert (await _trusting(ring, clock, Keys(keys)).verify(token)).access == SCOPE


async def test_a_certificate_ends(ring: KeyRing, clock: Clock) -> None:
    """And its key with it, unless there is a newer one for the same key."""
    key = ec.generate_private_key(ec.SECP256R1())
    old, new = (certificate_of(key, "pem", end=end).encode() for end in (NOW + 10, NOW + 1000))
    token = _foreign(key, "ES256", kid=thumbprint(key.public_key()))()
    for bundle, is_good in ((old, True), (new + old, True), (old, False), (new + old, True)):
        verifier = _trusting(ring, clock, Keys(KeySet.of_certificates(bundle, algorithms=("ES256",))))
        if is_good:
            await verifier.verify(token)
        else:
            assert await reason_of(verifier, token) == "key-expired"
        clock.now += 5


async def test_two_keys_of_one_name(ring: KeyRing, clock: Clock, rsa_key: rsa.RSAPrivateKey) -> None:
    """Nobody can tell which is meant; the same key twice is one."""
    other = jwk_of(rsa.generate_private_key(65537, 2048), kid="k")
    twice = {"keys": [jwk_of(rsa_key, kid="k"), jwk_of(rsa_key, kid="k", alg="RS256")]}
    token = _foreign(rsa_key, "RS256", kid="k")()
    await _trusting(ring, clock, Keys(KeySet.of_jwks(twice, algorithms=("RS256",)))).verify(token)
    twice["keys"].append(other)
    ambiguous = _trusting(ring, clock, Keys(KeySet.of_jwks(twice, algorithms=("RS256",))))
    assert await reason_of(ambiguous, token) == "key-ambiguous"


async def test_another_issuers_keys_are_looked_at_again(
    ring: KeyRing, clock: Clock, rsa_key: rsa.RSAPrivateKey
) -> None:
    """A minute after a token was found good at the latest: its key may have been withdrawn."""
    keys = Keys(KeySet.of_jwks({"keys": [jwk_of(rsa_key, kid="k")]}, algorithms=("RS256",)))
    verifier, token = _trusting(ring, clock, keys), _foreign(rsa_key, "RS256", kid="k")()
    for seconds, asked in ((0, 1), (59, 1), (1, 2)):
        clock.now += seconds
        await verifier.verify(token)
        assert keys.asked == asked
    keys.keys = KeySet(())
    clock.now += 60
    assert await reason_of(verifier, token) == "key-unknown"


def test_two_issuers_of_one_name(ring: KeyRing, clock: Clock) -> None:
    """Nobody could tell their tokens apart."""
    issuer = TokenIssuer("other", ISSUER, SERVICE, Keys(KeySet(())))
    with pytest.raises(ConfigurationError, match="each needs an issuer of its own, and not ours, 'moorage'"):
        TokenVerifier(ring, issuer=ISSUER, service=SERVICE, issuers=(issuer,), clock=clock)


@pytest.mark.parametrize(
    ("entry", "is_kept"),
    [
        pytest.param({}, True, id="plain"),
        pytest.param({"use": "sig", "key_ops": ["verify"], "alg": "RS256"}, True, id="for signatures"),
        pytest.param({"use": "enc"}, False, id="for encryption"),
        pytest.param({"key_ops": ["encrypt"]}, False, id="for other operations"),
        pytest.param({"key_ops": "verify"}, False, id="operations are a text"),
        pytest.param({"alg": "PS256"}, False, id="an algorithm that is not allowed"),
        pytest.param({"alg": 1}, False, id="the algorithm is a number"),
        pytest.param({"n": encoded(bytes([255]) * 128)}, False, id="1024 bits"),
        pytest.param({"n": encoded(bytes([255]) * 2048)}, False, id="16384 bits"),
        pytest.param({"e": encoded(b"\x03")}, False, id="exponent 3"),
        pytest.param({"n": None}, False, id="no modulus"),
        pytest.param({"kty": "oct", "k": "AAAA"}, False, id="symmetric"),
    ],
)
def test_keys_of_a_set(rsa_key: rsa.RSAPrivateKey, entry: dict[str, Any], is_kept: bool) -> None:
    """Only those that are for signatures, strong, and for an allowed algorithm; a set without any is refused."""
    document = {"keys": [{**jwk_of(rsa_key, kid="k"), **entry}, {"kty": "EC", "crv": "P-521"}, "x", None]}
    if is_kept:
        (key,) = KeySet.of_jwks(document, algorithms=("RS256",)).keys
        assert key.algorithms == {"RS256"}
    else:
        with pytest.raises(ValueError, match="no key for the algorithms"):
            KeySet.of_jwks(document, algorithms=("RS256",))
