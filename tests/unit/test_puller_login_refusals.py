"""What a token service cannot get out of a client, and what is said to somebody who is not let in."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.puller.credentials import Credentials, FixedKeychain
from moorage.puller.errors import BadAnswer, RateLimited
from moorage.puller.login import Login
from moorage.puller.origins import Origin
from moorage.puller.tokens import parse_token
from moorage.puller.transport import RetryPolicy, Transport
from moorage.registry.oci import Denied, OciError, Unauthorized

from tests.content import blob, repository
from tests.scripted import Reply, scripted
from tests.tokenservice import ALICE, PULL, World, connected, json_reply, world_of

_HERE = repository("team/app")
_BLOB = blob("remote", 1000)
_NAMES = st.sampled_from(["token", "access_token", "expires_in", "issued_at"])


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(401), Unauthorized),
        (Reply(400), Unauthorized),
        (Reply(403), Denied),
        (Reply(429), RateLimited),
        (Reply(500), OciError),
        (Reply(418), BadAnswer),
        (Reply(200, b"{}"), BadAnswer),
        (Reply(200, b"[]"), BadAnswer),
        (Reply(200, b"null"), BadAnswer),
        (Reply(200, b"<html>"), BadAnswer),
        (Reply(200, b"[" * 60_000), BadAnswer),
        (Reply(200, b'{"token": "a\\r\\nb"}'), BadAnswer),
        (Reply(200, b'{"token": "a b"}'), BadAnswer),
        (Reply(200, b'{"token": "\\u00fc"}'), BadAnswer),
        (Reply(200, b'{"token": 5}'), BadAnswer),
        (Reply(200, b'{"token": ""}'), BadAnswer),
        (Reply(200, b"x" * 70_000), BadAnswer),
        (Reply(200, b"x" * 65_536, {"content-length": ""}, 10_000), BadAnswer),
        (Reply(307, headers={"location": "http://other.example/"}), OciError),
        (Reply(307, headers={"location": "http://169.254.169.254/"}), OciError),
    ],
)
async def test_a_token_service_may_fail(reply: Reply, error: type[OciError]) -> None:
    """With a clear error that holds no secret, never with a header that was not one."""
    world = World(lambda seen: reply)
    async with connected(world, ALICE) as (_, registry):
        with pytest.raises(error) as caught:
            await registry.resolve_blob(_HERE, _BLOB.digest)
    assert "s3cret" not in str(caught.value)
    assert ALICE.basic not in str(caught.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES | st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)


@given(_JSON.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=200))
def test_any_answer_is_a_token_or_an_error(body: bytes) -> None:
    """A header is sent only if it is one; a life is a time."""
    try:
        grant = parse_token(body, "https://h/token")
    except BadAnswer:
        return
    assert grant.header.isascii()
    assert grant.header.isprintable()
    assert grant.header.startswith("Bearer ")
    assert 5 < grant.expires - time.monotonic() <= 24 * 3600


@pytest.mark.parametrize(
    "realm",
    ["https://other.example/token", "http://other.example/token", "ftp://127.0.0.1/", "", "token", "//127.0.0.1/token",
     "http://169.254.169.254/", "http://[x", "{url}@other.example/", "http://user@127.0.0.1:1/token"],
)  # fmt: skip
async def test_a_realm_elsewhere_is_refused(realm: str) -> None:
    """Rule P1: before anything is sent there."""
    world = world_of(lambda w, _: w.grant(), challenge=f'Bearer realm="{realm}"')
    async with connected(world, ALICE) as (server, registry):
        with pytest.raises(BadAnswer):
            await registry.resolve_blob(_HERE, _BLOB.digest)
        assert len(server.seen) == 1


async def test_a_redirected_token_request_loses_its_login() -> None:
    """Another origin is not shown the password."""
    elsewhere = World(lambda seen: json_reply(200, {"token": "stolen"}))
    async with scripted(elsewhere) as other:
        moved = Reply(307, headers={"location": f"{other.url}/token"})
        world = World(lambda seen: moved, valid={"Bearer stolen"})
        async with connected(world, ALICE) as (server, registry):
            await registry.resolve_blob(_HERE, _BLOB.digest)
        assert "authorization" in server.seen[1].headers
        assert ["authorization" in seen.headers for seen in elsewhere.asked] == [False]


async def test_a_form_is_not_redirected() -> None:
    """It holds the refresh token."""
    world = World(lambda seen: Reply(307, headers={"location": "/elsewhere"}))
    async with connected(world, Credentials(identity_token="idt")) as (server, registry):
        with pytest.raises(BadAnswer):
            await registry.resolve_blob(_HERE, _BLOB.digest)
        assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("credentials", "challenge", "said"),
    [
        (None, 'Basic realm="r"', "nobody is logged in (moorage login 127.0.0.1:"),
        (Credentials(identity_token="idt"), 'Basic realm="r"', "there is only an identity token"),
        (None, 'Bearer realm="{url}/token"', "nobody is logged in (moorage login 127.0.0.1:"),
    ],
)
async def test_what_is_missing_is_said(credentials: Credentials | None, challenge: str, said: str) -> None:
    """And nothing is made up."""
    world = World(lambda seen: Reply(401), challenge)
    async with connected(world, credentials) as (server, registry):
        with pytest.raises(Unauthorized) as caught:
            await registry.resolve_blob(_HERE, _BLOB.digest)
        assert said in caught.value.message
        assert all("authorization" not in seen.headers for seen in server.seen)


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        (None, "not permitted without a login (moorage login 127.0.0.1:"),
        (ALICE, "not permitted to 'alice': repository:"),
    ],
)
@pytest.mark.parametrize("is_granted", [True, False], ids=["a token good for nothing", "403"])
async def test_what_is_not_permitted_is_said(credentials: Credentials | None, said: str, is_granted: bool) -> None:
    """Whether the token service refuses (ghcr.io, GitLab) or the registry (Docker Hub)."""
    world = World(lambda seen: json_reply(200, {"token": "t"}) if is_granted else Reply(403))
    async with connected(world, credentials) as (_, registry):
        with pytest.raises(Unauthorized if is_granted else Denied) as caught:
            await registry.resolve_blob(_HERE, _BLOB.digest)
    assert said in caught.value.message
    assert PULL in caught.value.message


async def test_secrets_do_not_print() -> None:
    """Neither credentials nor tokens, wherever they are kept."""
    world = world_of(lambda w, _: w.grant())
    world.valid = {"Bearer s3cret-token"}
    world.token = lambda seen: json_reply(200, {"token": "s3cret-token"})
    async with connected(world, ALICE) as (_, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
        login: Login = registry._wire._login
        shown = f"{login!r} {registry!r} {login._grants!r} {login._found!r} {ALICE!r}"
    assert "s3cret" not in shown


async def test_a_registry_without_a_challenge_is_not_answered() -> None:
    """A 401 that asks for nothing we know stays one."""
    async with Transport(retry=RetryPolicy(attempts=1)) as transport:
        world = World(lambda seen: Reply(500), 'Negotiate, Digest realm="r"')
        async with connected(world, ALICE) as (server, registry):
            with pytest.raises(Unauthorized):
                await registry.resolve_blob(_HERE, _BLOB.digest)
            assert len(server.seen) == 1
        assert repr(Login(transport, Origin.of("https://h"), FixedKeychain(ALICE))) == "<Login to https://h>"
