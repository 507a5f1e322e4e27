"""What the gate before ``/v2`` tells those whom it does not let in: challenges, and at which address to log in."""

from __future__ import annotations

import base64
import re

import pytest
from moorage.auth.scope import Scope
from moorage.registry.settings import load_settings
from moorage.registry.web.app import create_app
from moorage.registry.web.gate import Gate
from moorage.registry.web.proxied import proxied

from tests.stage import ON_STAGE, Stage
from tests.wire.gated import MINE, challenge_of, fill, spoken
from tests.wire.locked import Locked, authority, basic, files, foundation, locked

__all__ = ["authority", "files", "foundation", "locked"]

pytestmark = ON_STAGE


async def test_the_ping_asks_for_a_login_whatever_is_open(locked: Locked) -> None:
    """podman takes its challenge from the ping alone: 200 there, and it would never send credentials."""
    challenge = challenge_of(await locked.wire.get("/v2/"))
    assert challenge.scheme == "bearer"
    url = str(locked.wire.base_url).rstrip("/")
    assert challenge.parameters == {"realm": f"{url}/token", "service": "moorage"}
    assert (await locked.wire.get("/v2/", headers=basic("eve"))).status_code == 200
    assert (await locked.wire.get("/v2/", headers=await locked.bearer("eve"))).status_code == 200
    assert (await locked.wire.get("/v2/", headers=await locked.bearer(""))).status_code == 200


@pytest.mark.parametrize(("method", "path", "scope"), MINE, ids=spoken(MINE))
async def test_a_challenge_names_what_is_needed(locked: Locked, method: str, path: str, scope: str) -> None:
    """With the token that it asks for, and no other, the request comes in; the error's detail says the same."""
    await fill(locked.local, "mine/boat")
    answer = await locked.wire.request(method, path)
    challenge = challenge_of(answer)
    assert challenge.parameters["scope"] == scope
    assert "error" not in challenge.parameters
    if method != "HEAD":
        (error,) = answer.json()["errors"]
        assert error["code"] == "UNAUTHORIZED"
        named = {(one["Type"], one["Class"], one["Name"], one["Action"]) for one in error["detail"]}
        assert named == {(r.type, r.kind, r.name, action) for r, action in Scope.parse(scope).permissions}
    allowed = await locked.wire.request(method, path, headers=await locked.bearer("alice", *scope.split()))
    assert allowed.status_code not in (401, 403)


async def test_a_catalog_needs_a_scope_of_its_own(locked: Locked) -> None:
    """And then shows what its reader may pull from, no more (A18)."""
    await fill(locked.local, "mine/boat", "theirs/boat", "public/boat")
    challenge = challenge_of(await locked.wire.get("/v2/_catalog"))
    assert challenge.parameters["scope"] == "registry:catalog:*"
    seen = await locked.wire.get("/v2/_catalog", headers=await locked.bearer("carol", "registry:catalog:*"))
    assert seen.json() == {"repositories": ["mine/boat", "public/boat"]}
    assert (await locked.wire.get("/v2/_catalog", headers=basic("bob"))).status_code == 403


async def test_a_challenge_is_one_line_of_quoted_values(locked: Locked) -> None:
    """Clients read the first header only, or the last, and some only quoted values."""
    answer = await locked.wire.get("/v2/mine/boat/tags/list")
    (line,) = answer.headers.get_list("www-authenticate")
    assert re.fullmatch(r'Bearer (?:[a-z]+="[^"]*",)*[a-z]+="[^"]*"', line)


async def test_an_expired_or_broken_token_is_said_to_be_invalid(locked: Locked) -> None:
    """containerd caches a token without its time, and fetches another only at error="invalid_token"."""
    token = await locked.token("alice", "repository:mine/boat:pull")
    for wrong in (token[:-4] + "AAAA", "x", "x" * 9000, "a.b.c"):
        answer = await locked.wire.get("/v2/mine/boat/tags/list", headers={"authorization": f"Bearer {wrong}"})
        assert challenge_of(answer).parameters["error"] == "invalid_token", wrong
        assert (await locked.wire.get("/v2/", headers={"authorization": f"Bearer {wrong}"})).status_code == 401


async def test_a_token_for_something_else_is_insufficient(locked: Locked) -> None:
    """401 and the scope that would do, where the policy would allow it; 403 where it would not."""
    await fill(locked.local, "mine/boat")
    headers = await locked.bearer("alice", "repository:mine/other:pull")
    answer = await locked.wire.get("/v2/mine/boat/manifests/latest", headers=headers)
    parameters = challenge_of(answer).parameters
    assert (parameters["error"], parameters["scope"]) == ("insufficient_scope", "repository:mine/boat:pull")
    headers = await locked.bearer("bob", "repository:mine/boat:pull")
    answer = await locked.wire.get("/v2/mine/boat/manifests/latest", headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (403, "DENIED")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("Basic", id="no value"),
        pytest.param("Basic !!!", id="not base64"),
        pytest.param("Basic " + base64.b64encode(b"alice").decode(), id="no colon"),
        pytest.param("Basic " + base64.b64encode(b"\xff:\xff").decode(), id="not UTF-8"),
        pytest.param("Basic " + base64.b64encode(b"alice:wrong").decode(), id="wrong password"),
        pytest.param("Digest alice", id="another scheme"),
        pytest.param("Bearer", id="no token"),
        pytest.param("Basic " + base64.b64encode(b"alice:" + b"x" * 16384).decode(), id="T10: longer than 16 KiB"),
        pytest.param("", id="nothing"),
    ],
)
async def test_a_header_that_is_no_login(locked: Locked, value: str) -> None:
    """401 with a challenge, also where everybody may read: what was sent was meant."""
    await fill(locked.local, "public/boat")
    for path in ("/v2/", "/v2/public/boat/manifests/latest"):
        challenge_of(await locked.wire.get(path, headers={"authorization": value}))


async def test_two_logins_in_one_request_are_none(locked: Locked) -> None:
    """Whichever was believed, a proxy may have meant the other one."""
    one = basic("alice")["authorization"]
    answer = await locked.wire.get("/v2/", headers=[("authorization", one), ("authorization", one)])
    assert answer.status_code == 401


# -- external addresses ------------------------------------------------------------------------------------------------


async def realm(locked: Locked, headers: dict[str, str]) -> str:
    return challenge_of(await locked.wire.get("/v2/", headers=headers)).parameters["realm"]


FORWARDED = {"x-forwarded-proto": "https", "x-forwarded-host": "registry.example", "x-forwarded-for": "192.0.2.9"}


async def test_t12_nobody_is_believed_unasked(locked: Locked) -> None:
    """T12: without --trusted-proxies what a client says about itself changes nothing."""
    headers = {**FORWARDED, "forwarded": "proto=https;host=registry.example", "host": "here.example:5000"}
    assert await realm(locked, headers) == "http://here.example:5000/token"


@pytest.mark.parametrize(("networks", "is_trusted"), [("192.0.2.0/24", False), ("127.0.0.0/8,10.0.0.0/8", True)])
async def test_t12_only_proxies_that_were_named(locked: Locked, stage: Stage, networks: str, is_trusted: bool) -> None:
    """T12: a request that comes from elsewhere cannot choose its address, scheme or host."""
    seen: list[str] = []
    inner = create_app(locked.local, gate=Gate(locked.local, locked.authority))

    async def watching(scope: object, receive: object, send: object) -> None:
        seen.append(scope["client"][0])  # type: ignore[index]
        await inner(scope, receive, send)  # type: ignore[arg-type]

    trusted = load_settings({"trusted_proxies": networks}, {}).settings.trusted_proxies
    stage.show(proxied(watching, trusted))
    expected = "https://registry.example/token" if is_trusted else "http://here.example/token"
    assert await realm(locked, {**FORWARDED, "host": "here.example"}) == expected
    chain = {"x-forwarded-for": "203.0.113.5, 192.0.2.9, 10.1.1.1", "x-forwarded-proto": "gopher"}
    assert (await realm(locked, {**chain, "host": "h"})).startswith("http://h/")
    assert (
        await realm(locked, {"x-forwarded-host": "a b", "x-forwarded-for": "junk", "host": "h"})
    ) == "http://h/token"
    assert seen == (["192.0.2.9", "192.0.2.9", "127.0.0.1"] if is_trusted else ["127.0.0.1"] * 3)


async def test_an_external_url_is_the_last_word(locked: Locked, stage: Stage) -> None:
    """Whatever the Host header says."""
    stage.show(create_app(locked.local, gate=Gate(locked.local, locked.authority, external_url="https://r.example")))
    assert await realm(locked, {"host": "other.example"}) == "https://r.example/token"
