"""Which tokens are believed: ours and those of trusted issuers, and none of the ways in which others were deceived."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from moorage.auth import tokens
from moorage.auth.errors import ConfigurationError, ExpiredToken, InvalidToken
from moorage.auth.keys import KeyRing
from moorage.auth.principal import ANONYMOUS, Principal
from moorage.auth.scope import Resource, Scope
from moorage.auth.tokens import Grant, TokenIssuer, TokenSigner, TokenVerifier
from moorage.auth.trust import KeySet, TrustedKey, thumbprint

from tests.forge import Forger, encoded, forge, hmac_signer, jwk_of

_NOW = 1_800_000_000
_ISSUER, _SERVICE = "moorage", "registry.example.org"
_SCOPE = Scope.parse("repository:a/b:pull,push")
_CLAIMS = {
    "iss": _ISSUER,
    "sub": "alice",
    "aud": _SERVICE,
    "iat": _NOW,
    "nbf": _NOW,
    "exp": _NOW + 300,
    "jti": "one",
    "access": [{"type": "repository", "name": "a/b", "actions": ["pull", "push"]}],
}


class Clock:
    """Stands until it is moved; seconds since 1970."""

    def __init__(self) -> None:
        self.now = float(_NOW)

    def __call__(self) -> float:
        return self.now


class Keys:
    """An issuer whose keys are known, and which counts how often it is asked."""

    def __init__(self, keys: KeySet) -> None:
        self.keys = keys
        self.asked = 0

    async def find(self, header: Mapping[str, Any], algorithm: str) -> TrustedKey:
        """See ``KeyFinder``."""
        self.asked += 1
        return self.keys.select(header, algorithm)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing.create(str(tmp_path / "key"))


@pytest.fixture
def signer(ring: KeyRing, clock: Clock) -> TokenSigner:
    return TokenSigner(ring, issuer=_ISSUER, service=_SERVICE, clock=clock)


@pytest.fixture
def verifier(ring: KeyRing, clock: Clock) -> TokenVerifier:
    return TokenVerifier(ring, issuer=_ISSUER, service=_SERVICE, clock=clock)


@pytest.fixture
def ours(ring: KeyRing) -> Forger:
    """Whoever has our key: its tokens differ from ours only in what a test says."""
    key = ring.current().signing
    return Forger(key.private, {"typ": "JWT", "alg": key.algorithm, "kid": key.kid}, _CLAIMS)


async def _reason(verifier: TokenVerifier, raw: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        await verifier.verify(raw)
    return caught.value.reason


async def test_what_we_issue_we_believe(signer: TokenSigner, verifier: TokenVerifier) -> None:
    """All of it: who, their groups, what they may do, until when."""
    issued = signer.issue(Principal("oidc:ci:sub", frozenset({"publisher:web"})), _SCOPE, ttl=300)
    assert (issued.expires_in, issued.issued_at) == (300, _NOW)
    grant = await verifier.verify(issued.token)
    assert grant.principal == Principal("oidc:ci:sub", frozenset({"publisher:web"}))
    assert (grant.access, grant.expires, grant.issuer) == (_SCOPE, _NOW + 300, "")
    assert grant.token_id
    again = await verifier.verify(signer.issue(ANONYMOUS, Scope(), ttl=60).token)
    assert (again.principal, again.access) == (ANONYMOUS, Scope())
    assert again.token_id != grant.token_id


async def test_the_token_that_others_read(signer: TokenSigner, ring: KeyRing) -> None:
    """As distribution's specification has it, and no more."""
    head, body, _ = signer.issue(Principal("alice"), _SCOPE, ttl=300).token.split(".")
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, body))
    assert header == {"typ": "JWT", "alg": "EdDSA", "kid": ring.jwks()["keys"][0]["kid"]}
    assert claims | {"jti": "one"} == _CLAIMS


@given(
    st.frozensets(
        st.tuples(
            st.builds(Resource, st.sampled_from(["repository", "registry"]), st.text("abc/", min_size=1)),
            st.sampled_from(["pull", "push", "delete", "*"]),
        ),
        max_size=8,
    ),
    st.text(max_size=40),
)
async def test_every_scope_survives(
    tmp_path_factory: pytest.TempPathFactory, permissions: frozenset[tuple[Resource, str]], name: str
) -> None:
    """Property: what is issued is what is granted, never more; whatever a principal is called."""
    ring = KeyRing.create(str(tmp_path_factory.getbasetemp() / "property.key"))
    signer = TokenSigner(ring, issuer="i", service="s")
    verifier = TokenVerifier(ring, issuer="i", service="s")
    scope, principal = Scope(permissions), Principal(name)
    token = signer.issue(principal, scope, ttl=60).token
    if not name.isprintable():
        assert await _reason(verifier, token) == "sub"
        return
    grant = await verifier.verify(token)
    assert (grant.principal, grant.access) == (principal, scope)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        pytest.param({"iss": "somebody"}, "iss", id="another issuer"),
        pytest.param({"iss": "moor"}, "iss", id="a part of our name"),
        pytest.param({"iss": [_ISSUER]}, "iss", id="issuers as a list"),
        pytest.param({"iss": None}, "iss", id="no issuer"),
        pytest.param({"aud": "elsewhere"}, "aud", id="another audience"),
        pytest.param({"aud": _SERVICE[:-1]}, "aud", id="a part of the audience"),
        pytest.param({"aud": []}, "aud", id="no audience in the list"),
        pytest.param({"aud": {_SERVICE: 1}}, "aud", id="an object as audience"),
        pytest.param({"aud": [_SERVICE, 1]}, "aud", id="a number among the audiences"),
        pytest.param({"aud": None}, "aud", id="no audience"),
        pytest.param({"exp": _NOW - 31}, "expired", id="expired"),
        pytest.param({"exp": None}, "exp", id="never expires"),
        pytest.param({"exp": _NOW + 0.5}, "exp", id="a fraction"),
        pytest.param({"exp": -1}, "exp", id="negative"),
        pytest.param({"exp": True}, "exp", id="a boolean"),
        pytest.param({"exp": str(_NOW + 300)}, "exp", id="a text"),
        pytest.param({"exp": 1 << 60}, "exp", id="beyond all clocks"),
        pytest.param({"nbf": _NOW + 31}, "nbf-future", id="not yet"),
        pytest.param({"nbf": None}, "nbf", id="no nbf"),
        pytest.param({"iat": _NOW + 31}, "iat-future", id="from the future"),
        pytest.param({"iat": None}, "iat", id="no iat"),
        pytest.param({"jti": None}, "jti", id="no jti"),
        pytest.param({"jti": 1}, "jti", id="jti is a number"),
        pytest.param({"sub": None}, "sub", id="no subject"),
        pytest.param({"sub": ["alice"]}, "sub", id="a list of subjects"),
        pytest.param({"sub": "alice\nbob"}, "sub", id="a subject of two lines"),
        pytest.param({"groups": "admins"}, "groups", id="groups are a text"),
        pytest.param({"groups": [1]}, "groups", id="a group is a number"),
        pytest.param({"access": {}}, "access", id="access is no list"),
        pytest.param({"access": ["repository:a/b:pull"]}, "access", id="access as texts"),
        pytest.param({"access": [{"type": "repository", "name": "a"}, {"name": "a"}]}, "access", id="no type"),
        pytest.param({"access": [{"type": "repository", "name": "a", "actions": "pull"}]}, "access", id="no list"),
        pytest.param({"access": [{"type": "repository", "name": "a", "actions": [["*"]]}]}, "access", id="deep"),
    ],
)
async def test_claims_that_do_not_hold(
    ours: Forger, verifier: TokenVerifier, wrong: dict[str, Any], reason: str
) -> None:
    """T3: even with our signature."""
    assert await verifier.verify(ours()) == Grant(Principal("alice"), _SCOPE, _NOW + 300, "one")
    assert await _reason(verifier, ours(**wrong)) == reason


@pytest.mark.parametrize(
    "claims", [{"exp": _NOW - 29}, {"nbf": _NOW + 29, "iat": _NOW + 29}, {"aud": ["other", _SERVICE]}, {"access": None}]
)
async def test_claims_that_hold(ours: Forger, verifier: TokenVerifier, claims: dict[str, Any]) -> None:
    """Clocks may differ by half a minute; an audience may be one of several."""
    assert (await verifier.verify(ours(**claims))).principal == Principal("alice")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        pytest.param({"alg": "none"}, "algorithm", id="none"),
        pytest.param({"alg": "None"}, "algorithm", id="None"),
        pytest.param({"alg": None}, "algorithm", id="no algorithm"),
        pytest.param({"alg": ["EdDSA"]}, "algorithm", id="a list of algorithms"),
        pytest.param({"alg": "HS256"}, "algorithm", id="HS256"),
        pytest.param({"alg": "ES256"}, "algorithm", id="another kind than the key"),
        pytest.param({"alg": "RS256"}, "algorithm", id="RS256"),
        pytest.param({"kid": None}, "key-unknown", id="no kid"),
        pytest.param({"kid": "other"}, "key-unknown", id="another kid"),
        pytest.param({"kid": ["x"]}, "key-unknown", id="a list of kids"),
        pytest.param({"typ": "at+jwt"}, "typ", id="a token of another type"),
        pytest.param({"typ": 1}, "typ", id="typ is a number"),
        pytest.param({"crit": ["exp"]}, "header", id="crit"),
        pytest.param({"crit": []}, "header", id="empty crit"),
        pytest.param({"b64": False}, "header", id="b64"),
        pytest.param({"zip": "DEF"}, "header", id="zip"),
        pytest.param({"enc": "A256GCM"}, "header", id="enc"),
    ],
)
async def test_headers_that_deceive(ours: Forger, verifier: TokenVerifier, header: dict[str, Any], reason: str) -> None:
    """T3, T11: the key says which algorithm it is for; what would change how the token is read is refused."""
    assert await _reason(verifier, ours(header=header)) == reason


@pytest.mark.parametrize("typ", [None, "jwt", "JWT", "application/jwt"])
async def test_typ_is_checked_where_it_is(ours: Forger, verifier: TokenVerifier, typ: str | None) -> None:
    """It may be missing."""
    await verifier.verify(ours(header={"typ": typ}))


async def test_the_public_key_is_no_secret(ours: Forger, ring: KeyRing, verifier: TokenVerifier) -> None:
    """T3: HS256 with our public key as the secret, however it is written; with an empty secret too."""
    public = ring.current().signing.private.public_key()
    forms = [public.public_bytes(form, PublicFormat.SubjectPublicKeyInfo) for form in (Encoding.PEM, Encoding.DER)]
    forms += [public.public_bytes(Encoding.Raw, PublicFormat.Raw), json.dumps(ring.jwks()["keys"][0]).encode(), b""]
    for secret in forms:
        for name in ("HS256", "EdDSA"):
            token = forge({**ours.header, "alg": name}, _CLAIMS, hmac_signer(secret))
            assert await _reason(verifier, token) == ("algorithm" if name == "HS256" else "signature")


async def test_a_key_in_the_header_is_not_trusted(ours: Forger, verifier: TokenVerifier) -> None:
    """T1: a token that brings its own key, by whatever name, is one that anybody could have signed."""
    mallory = ed25519.Ed25519PrivateKey.generate()
    shown = {"jwk": jwk_of(mallory), "jku": "https://evil.example/keys", "x5u": "https://evil.example/chain"}
    header = {"typ": "JWT", "alg": "EdDSA", **shown}
    assert await _reason(verifier, Forger(mallory, header, _CLAIMS)()) == "key-unknown"
    claimed = {"kid": ours.header["kid"], "jwk": jwk_of(mallory, kid=ours.header["kid"])}
    assert await _reason(verifier, Forger(mallory, header | claimed, _CLAIMS)()) == "signature"
    elliptic = ec.generate_private_key(ec.SECP256R1())
    chain = [_certificate(elliptic)]
    assert await _reason(verifier, Forger(elliptic, {"alg": "ES256", "x5c": chain}, _CLAIMS)()) == "key-unknown"


async def test_a_jwk_selects_a_key_that_is_trusted(ours: Forger, verifier: TokenVerifier) -> None:
    """As distribution's token server names its key; a kid beside it that nobody knows does no harm."""
    key = jwk_of(ours.private)
    await verifier.verify(ours(header={"kid": None, "jwk": key}))
    await verifier.verify(ours(header={"kid": "unknown", "jwk": key}))
    for damaged in ({**key, "x": "AA"}, {**key, "kty": "oct"}, {**key, "x": 1}, [key], "x", {}):
        assert await _reason(verifier, ours(header={"kid": None, "jwk": damaged})) == "key-unknown"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param("", "malformed", id="empty"),
        pytest.param("a.b", "malformed", id="one dot"),
        pytest.param("..", "header", id="two dots"),
        pytest.param("a.b.c.d.e", "malformed", id="encrypted: five parts"),
        pytest.param("." * 8000, "malformed", id="dots"),
        pytest.param("." * 8193, "too-long", id="too long"),
        pytest.param("é.é.é", "malformed", id="not ASCII"),
        pytest.param("\udc80.a.b", "malformed", id="half a character"),
        pytest.param(f"{encoded(b'[]')}.{encoded(b'{}')}.", "header", id="the header is a list"),
        pytest.param(f"{encoded(b'[' * 4000)}.{encoded(b'{}')}.", "header", id="a deep header"),
        pytest.param(f"{encoded(b'{}')}.{encoded(b'null')}.", "claims", id="no claims"),
        pytest.param(f"{encoded(b'{')}.{encoded(b'{}')}.", "header", id="broken JSON"),
        pytest.param(f"{encoded(bytes([255]))}.{encoded(b'{}')}.", "header", id="not UTF-8"),
    ],
)
async def test_what_is_no_token(verifier: TokenVerifier, raw: str, reason: str) -> None:
    """T10, T11: is refused before it costs anything."""
    assert await _reason(verifier, raw) == reason


@given(st.text(alphabet=st.sampled_from("abcAB01-_.=\n "), max_size=60))
async def test_reading_is_total(tmp_path_factory: pytest.TempPathFactory, raw: str) -> None:
    """Whatever is sent: InvalidToken, and nothing else."""
    ring = KeyRing.create(str(tmp_path_factory.getbasetemp() / "property.key"))
    assert await _reason(TokenVerifier(ring, issuer="i", service="s"), raw)


async def test_changed_tokens(ours: Forger, verifier: TokenVerifier) -> None:
    """One character of any part; the parts of two good tokens mixed; other ways of writing the same bytes."""
    good = ours()
    for place in range(0, len(good), 7):
        other = "A" if good[place] != "A" else "B"
        await _reason(verifier, good[:place] + other + good[place + 1 :])
    head, body, signature = good.split(".")
    _, other_body, _ = ours(sub="bob").split(".")
    assert await _reason(verifier, f"{head}.{other_body}.{signature}") == "signature"
    assert await _reason(verifier, f"{head}.{body}.") == "signature"
    for disguised in (f"{head}.{body}.{signature}=!", f"{head}.{body}\n.{signature}", f" {good}"):
        await _reason(verifier, disguised)


async def test_twin_keys_are_refused(ours: Forger, verifier: TokenVerifier) -> None:
    """A claim or header that stands twice means two things; so does a number that JSON does not have."""
    body = json.dumps(_CLAIMS)[:-1] + ', "sub": "bob"}'
    key = ours.private
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    assert await _reason(verifier, forge(dict(ours.header), body, key.sign)) == "claims"
    assert await _reason(verifier, forge('{"alg": "none", "alg": "EdDSA"}', _CLAIMS, key.sign)) == "header"
    assert await _reason(verifier, forge(dict(ours.header), '{"exp": NaN}', key.sign)) == "claims"


async def test_a_token_that_is_known_still_expires(signer: TokenSigner, verifier: TokenVerifier, clock: Clock) -> None:
    """To the second, half a minute late at most; and with another error than a wrong one."""
    token = signer.issue(Principal("alice"), _SCOPE, ttl=60).token
    grant = await verifier.verify(token)
    clock.now += 60 + 29
    assert await verifier.verify(token) is grant
    clock.now += 1
    with pytest.raises(ExpiredToken):
        await verifier.verify(token)


async def test_a_token_that_is_known_dies_with_its_key(tmp_path: Path, clock: Clock) -> None:
    """Where a key is taken out of the file, what it signed is refused at once."""
    path = str(tmp_path / "key")
    ring = KeyRing.create(path, clock=clock)
    verifier = TokenVerifier(ring, issuer=_ISSUER, service=_SERVICE, clock=clock)
    token = TokenSigner(ring, issuer=_ISSUER, service=_SERVICE, clock=clock).issue(ANONYMOUS, Scope(), ttl=300).token
    KeyRing(path).rotate()
    clock.now += 1
    await verifier.verify(token)  # its key is the previous one now
    KeyRing(path).rotate()
    clock.now += 1
    assert await _reason(verifier, token) == "key-unknown"


async def test_what_is_remembered_is_bounded(
    signer: TokenSigner, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a number of tokens, whoever asks for them; the oldest is forgotten first."""
    monkeypatch.setattr(tokens, "_MOST_REMEMBERED", 8)
    grants = [await verifier.verify(signer.issue(ANONYMOUS, Scope(), ttl=60).token) for _ in range(20)]
    assert [grant for _, grant in verifier._remembered.values()] == grants[-8:]


def test_too_much_for_one_token(signer: TokenSigner) -> None:
    """A token that nobody would read is not made."""
    scope = Scope(frozenset((Resource("repository", f"{'a' * 200}/{n}"), "pull") for n in range(50)))
    with pytest.raises(ValueError, match="too many scopes for one token"):
        signer.issue(ANONYMOUS, scope, ttl=60)


# Certificates


def _certificate(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, form: str = "x5c", *, end: int = _NOW + 86400
) -> str:
    """A self-signed certificate that holds until ``end``, in seconds since 1970."""
    name, until = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")]), datetime.fromtimestamp(end, UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(until - timedelta(days=400)).not_valid_after(until)
    signed = builder.sign(key, hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None)
    if form == "pem":
        return signed.public_bytes(Encoding.PEM).decode()
    return base64.b64encode(signed.public_bytes(Encoding.DER)).decode()


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
    bundle.write_text(_certificate(certified, "pem"))
    signer = TokenSigner(ring, issuer=_ISSUER, service=_SERVICE, certificates=str(bundle), clock=clock)
    token = signer.issue(Principal("alice"), _SCOPE, ttl=300).token
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    certificate = x509.load_der_x509_certificate(base64.b64decode(header["x5c"][0]))
    assert (header["alg"], header["kid"]) == ("ES256", thumbprint(certified.public_key()))
    assert certificate.public_key() == certified.public_key()
    verifier = TokenVerifier(ring, issuer=_ISSUER, service=_SERVICE, clock=clock)
    assert (await verifier.verify(token)).access == _SCOPE


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
    bundle.write_text(_certificate(edwards, "pem"))
    assert "need a signing key for ES256" in refusal(_ring_of(tmp_path / "key", edwards))
    assert "no certificate of the bundle is for one of the signing keys" in refusal(_ring_of(tmp_path / "key", key))


# Other issuers


def _foreign(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, algorithm: str, **header: Any) -> Forger:
    claims = {**_CLAIMS, "iss": "https://tokens.example", "nbf": None}
    return Forger(key, {"typ": "JWT", "alg": algorithm, **header}, claims)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _trusting(ring: KeyRing, clock: Clock, keys: Keys) -> TokenVerifier:
    issuer = TokenIssuer("other", "https://tokens.example", _SERVICE, keys)
    return TokenVerifier(ring, issuer=_ISSUER, service=_SERVICE, issuers=(issuer,), clock=clock)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
async def test_another_issuer(ring: KeyRing, clock: Clock, rsa_key: rsa.RSAPrivateKey, algorithm: str) -> None:
    """Speaks for principals of its own namespace only (T6), without ``nbf``, with the algorithm pinned to the key."""
    jwks = {"keys": [jwk_of(rsa_key, kid="k", alg=algorithm)]}
    verifier = _trusting(ring, clock, Keys(KeySet.of_jwks(jwks, algorithms=("RS256", "PS256"))))
    grant = await verifier.verify(_foreign(rsa_key, algorithm, kid="k")(groups=["admins"]))
    assert grant == Grant(Principal("issuer:other:alice"), _SCOPE, _NOW + 300, "one", "other")
    wrong = "PS256" if algorithm == "RS256" else "RS256"
    assert await _reason(verifier, _foreign(rsa_key, wrong, kid="k")()) == "algorithm"
    assert await _reason(verifier, _foreign(rsa_key, algorithm, kid="k")(iss=_ISSUER)) == "key-unknown"
    assert await _reason(verifier, _foreign(rsa_key, algorithm, kid="k")(nbf=_NOW + 60)) == "nbf-future"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        pytest.param({"aud": "elsewhere"}, "aud", id="another audience"),
        pytest.param({"aud": None}, "aud", id="no audience"),
        pytest.param({"exp": _NOW - 31}, "expired", id="expired"),
        pytest.param({"exp": None}, "exp", id="never expires"),
        pytest.param({"iat": None}, "iat", id="no iat"),
        pytest.param({"iat": _NOW + 31}, "iat-future", id="from the future"),
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
    assert await _reason(verifier, forger(**wrong)) == reason


@pytest.mark.parametrize("name", ["kid", "libtrust", "x5c"])
async def test_an_issuer_by_certificate(ring: KeyRing, clock: Clock, name: str) -> None:
    """Its tokens may name the key by thumbprint, by docker's older key id, or by the certificate itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    keys = KeySet.of_certificates(_certificate(key, "pem").encode(), algorithms=("ES256",))
    older = next(one for one in keys.keys[0].names if one.count(":") == 11)
    header: dict[str, dict[str, Any]] = {
        "kid": {"kid": thumbprint(key.public_key())},
        "libtrust": {"kid": older},
        "x5c": {"x5c": [_certificate(key)]},
    }
    token = _foreign(key, "ES256", **header[name])()
    assert (await _trusting(ring, clock, Keys(keys)).verify(token)).access == _SCOPE


async def test_a_certificate_ends(ring: KeyRing, clock: Clock) -> None:
    """And its key with it, unless there is a newer one for the same key."""
    key = ec.generate_private_key(ec.SECP256R1())
    old, new = (_certificate(key, "pem", end=end).encode() for end in (_NOW + 10, _NOW + 1000))
    token = _foreign(key, "ES256", kid=thumbprint(key.public_key()))()
    for bundle, is_good in ((old, True), (new + old, True), (old, False), (new + old, True)):
        verifier = _trusting(ring, clock, Keys(KeySet.of_certificates(bundle, algorithms=("ES256",))))
        if is_good:
            await verifier.verify(token)
        else:
            assert await _reason(verifier, token) == "key-expired"
        clock.now += 5


async def test_two_keys_of_one_name(ring: KeyRing, clock: Clock, rsa_key: rsa.RSAPrivateKey) -> None:
    """Nobody can tell which is meant; the same key twice is one."""
    other = jwk_of(rsa.generate_private_key(65537, 2048), kid="k")
    twice = {"keys": [jwk_of(rsa_key, kid="k"), jwk_of(rsa_key, kid="k", alg="RS256")]}
    token = _foreign(rsa_key, "RS256", kid="k")()
    await _trusting(ring, clock, Keys(KeySet.of_jwks(twice, algorithms=("RS256",)))).verify(token)
    twice["keys"].append(other)
    ambiguous = _trusting(ring, clock, Keys(KeySet.of_jwks(twice, algorithms=("RS256",))))
    assert await _reason(ambiguous, token) == "key-ambiguous"


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
    assert await _reason(verifier, token) == "key-unknown"


def test_two_issuers_of_one_name(ring: KeyRing, clock: Clock) -> None:
    """Nobody could tell their tokens apart."""
    issuer = TokenIssuer("other", _ISSUER, _SERVICE, Keys(KeySet(())))
    with pytest.raises(ConfigurationError, match="each needs an issuer of its own, and not ours, 'moorage'"):
        TokenVerifier(ring, issuer=_ISSUER, service=_SERVICE, issuers=(issuer,), clock=clock)


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
