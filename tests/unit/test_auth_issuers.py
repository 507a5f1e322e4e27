"""The keys of issuers: asked for when they are needed, not whenever a token wishes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from moorage.auth.configuration import AuthConfig, IssuerConfig, TokenIssuerConfig
from moorage.auth.errors import ConfigurationError, InvalidToken, IssuerUnavailable
from moorage.auth.issuers import FetchedKeys, keys_of_ci, token_issuers
from moorage.auth.patterns import RepositoryPattern
from moorage.auth.policy import Policy

from tests.forge import jwk_of

_URL = "https://ci.example/jobs"
_DISCOVERY = "https://ci.example/jobs/.well-known/openid-configuration"
_JWKS = "https://keys.example/jwks"


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Web:
    """Other machines: documents under URLs, and whoever asked for them."""

    def __init__(self, **documents: Any) -> None:
        self.documents: dict[str, Any] = {_DISCOVERY: {"issuer": _URL, "jwks_uri": _JWKS}, **documents}
        self.asked: list[str] = []
        self.is_down = False
        self.gate: asyncio.Event | None = None
        self.waiting = asyncio.Event()

    async def fetch(self, url: str, *, host: str, ca: str | None) -> bytes:
        """See ``KeySource``."""
        self.asked.append(url)
        assert (host, ca) == ("ci.example", "ca.pem")
        if self.gate is not None:
            self.waiting.set()
            await self.gate.wait()
        if self.is_down or url not in self.documents:
            raise IssuerUnavailable(f"{url}: down")
        document = self.documents[url]
        return document if isinstance(document, bytes) else json.dumps(document).encode()

    def publish(self, **keys: ed25519.Ed25519PrivateKey) -> None:
        """Puts these keys under the issuer's address, in place of all others."""
        self.documents[_JWKS] = {"keys": [jwk_of(key, kid=kid) for kid, key in keys.items()]}

    @property
    def count(self) -> int:
        """How often the keys were asked for."""
        return self.asked.count(_JWKS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def web() -> Web:
    web = Web()
    web.publish(one=ed25519.Ed25519PrivateKey.generate())
    return web


@pytest.fixture
def keys(web: Web, clock: Clock) -> FetchedKeys:
    return FetchedKeys(web, _URL, is_discovered=True, algorithms=("EdDSA",), ca="ca.pem", clock=clock)


async def _knows(keys: FetchedKeys, kid: str) -> bool:
    try:
        await keys.find({"kid": kid}, "EdDSA")
    except InvalidToken as exc:
        if exc.reason != "key-unknown":
            raise
        return False
    return True


async def test_keys_are_fetched_once(keys: FetchedKeys, web: Web) -> None:
    """By discovery, when the first token comes."""
    assert web.asked == []
    assert await _knows(keys, "one")
    assert await _knows(keys, "one")
    assert web.asked == [_DISCOVERY, _JWKS]


async def test_a_rotation_is_noticed_at_once(keys: FetchedKeys, web: Web) -> None:
    """A token names a key that is not known: the issuer may have a new one."""
    assert await _knows(keys, "one")
    web.publish(two=ed25519.Ed25519PrivateKey.generate())
    assert await _knows(keys, "two")
    assert not await _knows(keys, "one")


async def test_unknown_keys_cannot_make_us_ask(keys: FetchedKeys, web: Web, clock: Clock) -> None:
    """T15, T3: however many there are, they cause one fetch per minute; nor does the very first token ask twice."""
    assert not await _knows(keys, "nobody's")
    assert web.count == 1
    for number in range(50):
        assert not await _knows(keys, f"nobody's {number}")
    assert web.count == 2
    clock.now += 59
    assert not await _knows(keys, "nobody's")
    assert web.count == 2
    clock.now += 1
    assert not await _knows(keys, "nobody's")
    assert web.count == 3


async def test_the_wrong_algorithm_asks_for_nothing(keys: FetchedKeys, web: Web) -> None:
    """The key is known, so newer ones would say the same."""
    await _knows(keys, "one")
    with pytest.raises(InvalidToken, match="algorithm"):
        await keys.find({"kid": "one"}, "RS256")
    assert web.count == 1


async def test_a_withdrawn_key_is_forgotten(keys: FetchedKeys, web: Web, clock: Clock) -> None:
    """Within ten minutes, though every token names it."""
    assert await _knows(keys, "one")
    web.publish(two=ed25519.Ed25519PrivateKey.generate())
    clock.now += 599
    assert await _knows(keys, "one")
    clock.now += 1
    assert not await _knows(keys, "one")


async def test_an_unreachable_issuer(
    keys: FetchedKeys, web: Web, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its keys stay good for a day; it is tried again once a minute; after that nobody can say."""
    assert await _knows(keys, "one")
    web.is_down = True
    clock.now += 600
    for _ in range(5):
        assert await _knows(keys, "one")
    assert web.asked.count(_DISCOVERY) == 2
    assert "the keys that are known stay in use" in caplog.text
    clock.now += 24 * 3600 - 601
    assert await _knows(keys, "one")
    clock.now += 1
    with pytest.raises(IssuerUnavailable):
        await keys.find({"kid": "one"}, "EdDSA")
    web.is_down = False
    clock.now += 60
    assert await _knows(keys, "one")


async def test_an_issuer_that_never_was_reachable(keys: FetchedKeys, web: Web, clock: Clock) -> None:
    """Is asked every five seconds at most, and nothing is believed meanwhile."""
    web.is_down = True
    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            await keys.find({"kid": "one"}, "EdDSA")
    assert len(web.asked) == 1
    web.is_down = False
    clock.now += 5
    assert await _knows(keys, "one")


async def test_many_at_once_ask_once(keys: FetchedKeys, web: Web) -> None:
    """The first token of each of many jobs; also where the one that asks gives up."""
    web.gate = asyncio.Event()
    first = asyncio.create_task(_knows(keys, "one"))
    others = [asyncio.create_task(_knows(keys, "one")) for _ in range(10)]
    await web.waiting.wait()
    first.cancel()
    web.gate.set()
    assert await asyncio.gather(*others) == [True] * 10
    assert web.count == 1


async def test_a_rotation_while_many_come(keys: FetchedKeys, web: Web) -> None:
    """The first job with the new key asks; those that come meanwhile wait for the answer, and none is refused."""
    assert await _knows(keys, "one")
    web.publish(two=ed25519.Ed25519PrivateKey.generate())
    web.gate = asyncio.Event()
    first = asyncio.create_task(_knows(keys, "two"))
    await web.waiting.wait()
    others = [asyncio.create_task(_knows(keys, "two")) for _ in range(10)]
    await asyncio.sleep(0)
    web.gate.set()
    assert await asyncio.gather(first, *others) == [True] * 11
    assert web.count == 2


async def test_while_one_asks_the_others_go_on(keys: FetchedKeys, web: Web, clock: Clock) -> None:
    """With the keys that are known: a slow issuer holds up one job, not all."""
    assert await _knows(keys, "one")
    clock.now += 600
    web.gate = asyncio.Event()
    slow = asyncio.create_task(_knows(keys, "one"))
    await web.waiting.wait()
    assert await _knows(keys, "one")
    web.gate.set()
    assert await slow


@pytest.mark.parametrize(
    ("url", "document"),
    [
        pytest.param(_DISCOVERY, {"issuer": "https://evil.example", "jwks_uri": _JWKS}, id="another issuer's"),
        pytest.param(_DISCOVERY, {"issuer": f"{_URL}/", "jwks_uri": _JWKS}, id="nearly the issuer"),
        pytest.param(_DISCOVERY, {"issuer": _URL}, id="no keys named"),
        pytest.param(_DISCOVERY, {"issuer": _URL, "jwks_uri": [_JWKS]}, id="a list of places"),
        pytest.param(_DISCOVERY, [], id="a list"),
        pytest.param(_DISCOVERY, b"<html>", id="no JSON"),
        pytest.param(_JWKS, b"[" * 100_000, id="deep JSON"),
        pytest.param(_JWKS, {"keys": []}, id="no keys"),
        pytest.param(_JWKS, {"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "one"}]}, id="a secret"),
        pytest.param(_JWKS, {"one": "key"}, id="no key set"),
    ],
)
async def test_answers_that_are_not_believed(keys: FetchedKeys, web: Web, url: str, document: object) -> None:
    """One line says what was wrong; what was known before stays."""
    good, web.documents[url] = web.documents[url], document
    with pytest.raises(IssuerUnavailable) as caught:
        await keys.find({"kid": "one"}, "EdDSA")
    assert "\n" not in str(caught.value)
    assert "https://" in str(caught.value)
    web.documents[url] = good


async def test_a_file_in_place_of_discovery(tmp_path: Path, web: Web) -> None:
    """As Kubernetes needs it, whose discovery wants a login."""
    key = ed25519.Ed25519PrivateKey.generate()
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk_of(key, kid="one")]}))
    issuer = IssuerConfig("k8s", _URL, "moorage", algorithms=("EdDSA",), keys=str(path))
    found = await keys_of_ci(issuer, web).find({"kid": "one"}, "EdDSA")
    assert found.public == key.public_key()
    assert web.asked == []
    path.write_text("{}")
    with pytest.raises(ConfigurationError, match=r"jwks.json: it is no JSON Web Key Set"):
        keys_of_ci(issuer, web)


async def test_token_servers_by_url(web: Web, clock: Clock) -> None:
    """The key set itself is named: there is nothing to discover."""
    config = TokenIssuerConfig(
        "other", "tokens", "registry", ("EdDSA",), (RepositoryPattern("**"),),
        jwks_url="https://ci.example/keys", ca="ca.pem",
    )  # fmt: skip
    web.documents["https://ci.example/keys"] = web.documents[_JWKS]
    (issuer,) = token_issuers(AuthConfig(Policy(), token_issuers=(config,)), web, clock=clock)
    assert (issuer.name, issuer.issuer, issuer.audience) == ("other", "tokens", "registry")
    await issuer.keys.find({"kid": "one"}, "EdDSA")
    assert web.asked == ["https://ci.example/keys"]


def test_certificates_that_cannot_be_read(tmp_path: Path, web: Web) -> None:
    """At the start, in one line, with the name of the file."""
    (tmp_path / "bundle.pem").write_text("nothing")
    config = TokenIssuerConfig(
        "other", "tokens", "registry", ("ES256",), (RepositoryPattern("**"),), certificates=str(tmp_path / "bundle.pem")
    )
    with pytest.raises(ConfigurationError, match=r"bundle.pem: ") as caught:
        token_issuers(AuthConfig(Policy(), token_issuers=(config,)), web)
    assert "\n" not in str(caught.value)


def test_a_key_of_a_curve_that_is_not_spoken(tmp_path: Path, web: Web) -> None:
    """An issuer whose only key cannot be used is a mistake of the configuration, not a token that fails."""
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [jwk_of(key, kid="one")]}))
    issuer = IssuerConfig("ci", _URL, "moorage", algorithms=("RS256",), keys=str(tmp_path / "jwks.json"))
    with pytest.raises(ConfigurationError, match="no key for the algorithms that are allowed"):
        keys_of_ci(issuer, web)
