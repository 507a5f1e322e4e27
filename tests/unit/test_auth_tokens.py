"""Which tokens are believed: ours and those of trusted issuers, and none of the ways in which others were deceived."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from moorage.auth import tokens
from moorage.auth.errors import ExpiredToken
from moorage.auth.keys import KeyRing
from moorage.auth.principal import ANONYMOUS, Principal
from moorage.auth.scope import Resource, Scope
from moorage.auth.tokens import Grant, TokenSigner, TokenVerifier

from tests.forge import Forger, encoded, forge, hmac_signer, jwk_of
from tests.signed import CLAIMS, ISSUER, NOW, SCOPE, SERVICE, Clock, certificate_of, reason_of


async def test_what_we_issue_we_believe(signer: TokenSigner, verifier: TokenVerifier) -> None:
    """All of it: who, their groups, what they may do, until when."""
    issued = signer.issue(Principal("oidc:ci:sub", frozenset({"publisher:web"})), SCOPE, ttl=300)
    assert (issued.expires_in, issued.issued_at) == (300, NOW)
    grant = await verifier.verify(issued.token)
    assert grant.principal == Principal("oidc:ci:sub", frozenset({"publisher:web"}))
    assert (grant.access, grant.expires, grant.issuer) == (SCOPE, NOW + 300, "")
    assert grant.token_id
    again = await verifier.verify(signer.issue(ANONYMOUS, Scope(), ttl=60).token)
    assert (again.principal, again.access) == (ANONYMOUS, Scope())
    assert again.token_id != grant.token_id


async def test_the_token_that_others_read(signer: TokenSigner, ring: KeyRing) -> None:
    """As distribution's specification has it, and no more."""
    head, body, _ = signer.issue(Principal("alice"), SCOPE, ttl=300).token.split(".")
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, body))
    assert header == {"typ": "JWT", "alg": "EdDSA", "kid": ring.jwks()["keys"][0]["kid"]}
    assert claims | {"jti": "one"} == CLAIMS


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
        assert await reason_of(verifier, token) == "sub"
        return
    grant = await verifier.verify(token)
    assert (grant.principal, grant.access) == (principal, scope)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        pytest.param({"iss": "somebody"}, "iss", id="another issuer"),
        pytest.param({"iss": "moor"}, "iss", id="a part of our name"),
        pytest.param({"iss": [ISSUER]}, "iss", id="issuers as a list"),
        pytest.param({"iss": None}, "iss", id="no issuer"),
        pytest.param({"aud": "elsewhere"}, "aud", id="another audience"),
        pytest.param({"aud": SERVICE[:-1]}, "aud", id="a part of the audience"),
        pytest.param({"aud": []}, "aud", id="no audience in the list"),
        pytest.param({"aud": {SERVICE: 1}}, "aud", id="an object as audience"),
        pytest.param({"aud": [SERVICE, 1]}, "aud", id="a number among the audiences"),
        pytest.param({"aud": None}, "aud", id="no audience"),
        pytest.param({"exp": NOW - 31}, "expired", id="expired"),
        pytest.param({"exp": None}, "exp", id="never expires"),
        pytest.param({"exp": NOW + 0.5}, "exp", id="a fraction"),
        pytest.param({"exp": -1}, "exp", id="negative"),
        pytest.param({"exp": True}, "exp", id="a boolean"),
        pytest.param({"exp": str(NOW + 300)}, "exp", id="a text"),
        pytest.param({"exp": 1 << 60}, "exp", id="beyond all clocks"),
        pytest.param({"nbf": NOW + 31}, "nbf-future", id="not yet"),
        pytest.param({"nbf": None}, "nbf", id="no nbf"),
        pytest.param({"iat": NOW + 31}, "iat-future", id="from the future"),
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
    assert await verifier.verify(ours()) == Grant(Principal("alice"), SCOPE, NOW + 300, "one")
    assert await reason_of(verifier, ours(**wrong)) == reason


@pytest.mark.parametrize(
    "claims", [{"exp": NOW - 29}, {"nbf": NOW + 29, "iat": NOW + 29}, {"aud": ["other", SERVICE]}, {"access": None}]
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
    assert await reason_of(verifier, ours(header=header)) == reason


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
            token = forge({**ours.header, "alg": name}, CLAIMS, hmac_signer(secret))
            assert await reason_of(verifier, token) == ("algorithm" if name == "HS256" else "signature")


async def test_a_key_in_the_header_is_not_trusted(ours: Forger, verifier: TokenVerifier) -> None:
    """T1: a token that brings its own key, by whatever name, is one that anybody could have signed."""
    mallory = ed25519.Ed25519PrivateKey.generate()
    shown = {"jwk": jwk_of(mallory), "jku": "https://evil.example/keys", "x5u": "https://evil.example/chain"}
    header = {"typ": "JWT", "alg": "EdDSA", **shown}
    assert await reason_of(verifier, Forger(mallory, header, CLAIMS)()) == "key-unknown"
    claimed = {"kid": ours.header["kid"], "jwk": jwk_of(mallory, kid=ours.header["kid"])}
    assert await reason_of(verifier, Forger(mallory, header | claimed, CLAIMS)()) == "signature"
    elliptic = ec.generate_private_key(ec.SECP256R1())
    chain = [certificate_of(elliptic)]
    assert await reason_of(verifier, Forger(elliptic, {"alg": "ES256", "x5c": chain}, CLAIMS)()) == "key-unknown"


async def test_a_jwk_selects_a_key_that_is_trusted(ours: Forger, verifier: TokenVerifier) -> None:
    """As distribution's token server names its key; a kid beside it that nobody knows does no harm."""
    key = jwk_of(ours.private)
    await verifier.verify(ours(header={"kid": None, "jwk": key}))
    await verifier.verify(ours(header={"kid": "unknown", "jwk": key}))
    for damaged in ({**key, "x": "AA"}, {**key, "kty": "oct"}, {**key, "x": 1}, [key], "x", {}):
        assert await reason_of(verifier, ours(header={"kid": None, "jwk": damaged})) == "key-unknown"


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
    assert await reason_of(verifier, raw) == reason


@given(st.text(alphabet=st.sampled_from("abcAB01-_.=\n "), max_size=60))
async def test_reading_is_total(tmp_path_factory: pytest.TempPathFactory, raw: str) -> None:
    """Whatever is sent: InvalidToken, and nothing else."""
    ring = KeyRing.create(str(tmp_path_factory.getbasetemp() / "property.key"))
    assert await reason_of(TokenVerifier(ring, issuer="i", service="s"), raw)


async def test_changed_tokens(ours: Forger, verifier: TokenVerifier) -> None:
    """One character of any part; the parts of two good tokens mixed; other ways of writing the same bytes."""
    good = ours()
    for place in range(0, len(good), 7):
        other = "A" if good[place] != "A" else "B"
        await reason_of(verifier, good[:place] + other + good[place + 1 :])
    head, body, signature = good.split(".")
    _, other_body, _ = ours(sub="bob").split(".")
    assert await reason_of(verifier, f"{head}.{other_body}.{signature}") == "signature"
    assert await reason_of(verifier, f"{head}.{body}.") == "signature"
    for disguised in (f"{head}.{body}.{signature}=!", f"{head}.{body}\n.{signature}", f" {good}"):
        await reason_of(verifier, disguised)


async def test_twin_keys_are_refused(ours: Forger, verifier: TokenVerifier) -> None:
    """A claim or header that stands twice means two things; so does a number that JSON does not have."""
    body = json.dumps(CLAIMS)[:-1] + ', "sub": "bob"}'
    key = ours.private
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    assert await reason_of(verifier, forge(dict(ours.header), body, key.sign)) == "claims"
    assert await reason_of(verifier, forge('{"alg": "none", "alg": "EdDSA"}', CLAIMS, key.sign)) == "header"
    assert await reason_of(verifier, forge(dict(ours.header), '{"exp": NaN}', key.sign)) == "claims"


async def test_a_token_that_is_known_still_expires(signer: TokenSigner, verifier: TokenVerifier, clock: Clock) -> None:
    """To the second, half a minute late at most; and with another error than a wrong one."""
    token = signer.issue(Principal("alice"), SCOPE, ttl=60).token
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
    verifier = TokenVerifier(ring, issuer=ISSUER, service=SERVICE, clock=clock)
    token = TokenSigner(ring, issuer=ISSUER, service=SERVICE, clock=clock).issue(ANONYMOUS, Scope(), ttl=300).token
    KeyRing(path).rotate()
    clock.now += 1
    await verifier.verify(token)  # its key is the previous one now
    KeyRing(path).rotate()
    clock.now += 1
    assert await reason_of(verifier, token) == "key-unknown"


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
