"""Tokens are had from every kind of token service there is, shared, renewed, and shown to nobody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from moorage.auth.scope import Scope
from moorage.puller.credentials import Credentials
from moorage.puller.login import Login
from moorage.puller.messages import Request
from moorage.puller.origins import Origin
from moorage.registry.oci import Denied, OciError, Unauthorized

from tests.content import blob, repository
from tests.scripted import Reply, Seen
from tests.tokenservice import ALICE, PULL, World, connected, json_reply, told, world_of

_HERE, _THERE = repository("team/app"), repository("other/base")
_BLOB = blob("remote", 1000)


def _if_basic(user: Credentials, reply: Callable[[World], Reply]) -> Callable[[World, Seen], Reply]:
    """A service for GET with user and password, that knows no other flow."""

    def answer(world: World, seen: Seen) -> Reply:
        if seen.method != "GET":
            return Reply(405)
        return (
            reply(world) if seen.headers.get("authorization") == user.basic else json_reply(401, {"details": "wrong"})
        )

    return answer


def _if_form(
    reply: Callable[[World], Reply], otherwise: int, expected: Mapping[str, str]
) -> Callable[[World, Seen], Reply]:
    """A service for POST, which answers ``otherwise`` to a GET."""

    def answer(world: World, seen: Seen) -> Reply:
        if seen.method != "POST":
            return Reply(otherwise)
        assert seen.headers["content-type"] == "application/x-www-form-urlencoded"
        assert "authorization" not in seen.headers
        return (
            reply(world)
            if expected.items() <= dict(told(seen)).items()
            else json_reply(400, {"error": "invalid_grant"})
        )

    return answer


_GUID = "00000000-0000-0000-0000-000000000000"
_AZURE = Credentials(_GUID, identity_token="idt")
_GOOGLE = Credentials("_json_key", '{"type": "x:y"}')
_BOTH = Credentials("alice", "s3cret", identity_token="idt")
_FULL = {"access_token": "t0", "expires_in": 300, "issued_at": datetime.now(UTC).isoformat()}
_REFRESH = {"grant_type": "refresh_token", "refresh_token": "idt"}
_PASSWORD = {"grant_type": "password", "username": "alice", "password": "s3cret"}


def _access(world: World) -> Reply:
    return world.grant("access_token")


@pytest.mark.parametrize(
    ("token", "credentials", "flow"),
    [
        pytest.param(
            _if_basic(ALICE, lambda world: world.grant("token", _FULL)), ALICE, ["GET"],
            id="Docker Hub, Harbor: both names, a life, a time",
        ),
        pytest.param(_if_basic(ALICE, World.grant), ALICE, ["GET"], id="ghcr.io, Quay, GitLab: only a token"),
        pytest.param(lambda world, _: world.grant(), None, ["GET"], id="anonymous"),
        pytest.param(_if_basic(_GOOGLE, World.grant), _GOOGLE, ["GET"], id="Google: a document for a password"),
        pytest.param(
            _if_basic(Credentials(_GUID, "refresh"), _access), Credentials(_GUID, "refresh"), ["GET"],
            id="Azure: a refresh token for a password, only access_token",
        ),
        pytest.param(_if_form(_access, 401, _REFRESH), _AZURE, ["POST"], id="Azure, Docker Hub: identity token"),
        pytest.param(_if_form(World.grant, 405, _PASSWORD), ALICE, ["GET", "POST"], id="only POST, says 405"),
        pytest.param(_if_form(World.grant, 404, _PASSWORD), ALICE, ["GET", "POST"], id="only POST, says 404"),
        pytest.param(_if_basic(ALICE, World.grant), _BOTH, ["POST", "GET"], id="only GET, and an identity token"),
    ],
)  # fmt: skip
async def test_every_flow(
    token: Callable[[World, Seen], Reply], credentials: Credentials | None, flow: list[str]
) -> None:
    """One token by the flow that the service speaks, for service and scope as the challenge has them."""
    world = world_of(token)
    async with connected(world, credentials) as (_, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
        await registry.resolve_blob(_HERE, _BLOB.digest)
    assert [seen.method for seen in world.asked] == flow
    for seen in world.asked:
        asked = dict(told(seen))
        assert (asked["service"], asked["scope"]) == ("the service", PULL)
        assert asked.get("account") == (credentials.username if credentials and seen.method == "GET" else None)


async def test_basic_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Amazon ECR and plain htpasswd: sent with every request from then on; a second refusal is final."""
    user = Credentials("AWS", "x" * 2000)

    def answer(seen: Seen) -> Reply:
        is_user = seen.headers.get("authorization") == user.basic
        return Reply(200) if is_user else Reply(401, headers={"www-authenticate": 'Basic realm="r",service="ecr"'})

    world = World(lambda seen: Reply(500))
    monkeypatch.setattr(World, "__call__", lambda self, seen: answer(seen))
    async with connected(world, user) as (server, registry):
        for _ in range(2):
            await registry.resolve_blob(_HERE, _BLOB.digest)
        assert len(server.seen) == 3
    async with connected(world, Credentials("mallory", "x")) as (server, registry):
        with pytest.raises(Unauthorized):
            await registry.resolve_blob(_HERE, _BLOB.digest)
        assert len(server.seen) == 2


async def test_a_registry_token_is_shown_as_it_is() -> None:
    """To the registry, with no detour."""
    world = world_of(World.grant)  # type: ignore[arg-type]
    world.valid = {"Bearer given"}
    async with connected(world, Credentials(registry_token="given")) as (server, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
        assert len(server.seen) == 2
        world.valid = set()
        with pytest.raises(Unauthorized):
            await registry.resolve_blob(_HERE, _BLOB.digest)
    assert world.asked == []


async def test_bearer_goes_before_basic() -> None:
    """Where both are offered, on one line or two (Gitea)."""
    world = world_of(lambda w, _: w.grant(), challenge='Basic realm="b", Bearer realm="{url}/token?a=b"')
    async with connected(world, ALICE) as (_, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
    assert [urlsplit(seen.target).query for seen in world.asked] == [
        "a=b&scope=repository%3Ateam%2Fapp%3Apull&account=alice"
    ]


async def test_one_token_serves_what_it_covers() -> None:
    """A token to push is one to pull; each other scope has its own; a mount asks for both repositories at once."""
    world = world_of(lambda w, _: w.grant(), scope="")
    async with connected(world, ALICE) as (_, registry):
        await registry.start_upload(_HERE)
        await registry.resolve_blob(_HERE, _BLOB.digest)
        await registry.resolve_blob(_THERE, _BLOB.digest)
        with pytest.raises(OciError):
            await registry.mount_blob(_HERE, _BLOB.digest, source=_THERE)
    scopes = [[value for name, value in told(seen) if name == "scope"] for seen in world.asked]
    assert scopes == [
        ["repository:team/app:pull,push"],
        ["repository:other/base:pull"],
        ["repository:other/base:pull", "repository:team/app:pull,push"],
    ]  # fmt: skip


async def test_requests_that_are_refused_together_log_in_once() -> None:
    """And share the token."""
    world = world_of(lambda w, _: w.grant())
    async with connected(world, ALICE) as (_, registry):
        await asyncio.gather(*(registry.resolve_blob(_HERE, _BLOB.digest) for _ in range(20)))
    assert len(world.asked) == 1


async def test_a_wrong_password_is_tried_once() -> None:
    """By all requests together, so that nobody is locked out for one mistake."""
    world = world_of(lambda w, _: json_reply(401, {"details": "incorrect username or password"}))
    async with connected(world, ALICE) as (_, registry):
        done = await asyncio.gather(
            *(registry.resolve_blob(_HERE, _BLOB.digest) for _ in range(20)), return_exceptions=True
        )
    assert len(world.asked) == 1
    for failure in done:
        assert isinstance(failure, Unauthorized)
        assert "it refused 'alice'" in failure.message
        assert "s3cret" not in failure.message


async def test_a_request_that_was_sent_before_a_login_failed_shares_its_failure() -> None:
    """However late the registry refuses it; one that is sent later logs in anew."""
    world = world_of(lambda w, _: json_reply(401, {"details": "incorrect username or password"}))
    scope = Scope.parse(PULL)
    async with connected(world, ALICE) as (server, registry):
        login: Login = registry._wire._login  # the only way to decide what comes first
        async with registry._wire._transport.exchange(Request("GET", f"{server.url}/v2/")) as answer:
            for sent_after, asked in ((0, 1), (0, 1), (1, 2)):
                with pytest.raises(Unauthorized):
                    await login.answer_challenge(scope, answer, sent=None, failures=sent_after)
                assert len(world.asked) == asked


async def test_a_token_that_is_no_longer_taken_is_replaced_once() -> None:
    """Not for ever."""
    world = world_of(lambda w, _: w.grant())
    async with connected(world, ALICE) as (server, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
        world.valid = {"Bearer of others"}
        await registry.resolve_blob(_HERE, _BLOB.digest)
        before = len(server.seen)

        def stubborn(seen: Seen) -> Reply:
            world.valid = set()
            return world(seen)

        server.answer = stubborn
        with pytest.raises(Unauthorized, match=f"not permitted to 'alice': {PULL}"):
            await registry.resolve_blob(_HERE, _BLOB.digest)
        assert len(server.seen) - before == 3


async def test_a_head_that_is_denied() -> None:
    """Has no body that could say so: we say who may not do what, with the first token and with a later one."""
    world = world_of(lambda w, _: w.grant())
    async with connected(world, ALICE) as (server, registry):
        good = server.answer
        server.answer = lambda seen: Reply(403) if good(seen).status == 200 and "/v2/" in seen.target else good(seen)
        for _ in range(2):
            with pytest.raises(Denied, match=f"not permitted to 'alice': {PULL}"):
                await registry.resolve_blob(_HERE, _BLOB.digest)


async def test_a_registry_may_want_more() -> None:
    """The scope of an insufficient_scope challenge is asked for besides our own."""
    world = world_of(lambda w, _: w.grant(), scope="repository:team/base:pull repository:team/app:metadata_read")
    async with connected(world, ALICE) as (_, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
    assert [value for name, value in told(world.asked[0]) if name == "scope"] == [
        "repository:team/app:metadata_read,pull", "repository:team/base:pull",
    ]  # fmt: skip


@pytest.mark.parametrize("scope", ["nonsense", "aws", '\\"', "a:b:c:"])
async def test_a_scope_that_is_none_is_not_asked_for(scope: str) -> None:
    """Ours is enough."""
    world = world_of(lambda w, _: w.grant(), scope=scope)
    async with connected(world, ALICE) as (_, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
    assert dict(told(world.asked[0]))["scope"] == PULL


@pytest.mark.parametrize(
    ("answer", "life"),
    [
        pytest.param({}, 60, id="not said"),
        pytest.param({"expires_in": 1}, 60, id="less than the least"),
        pytest.param({"expires_in": 300}, 300, id="said"),
        pytest.param({"expires_in": "300"}, 60, id="a text"),
        pytest.param({"expires_in": float("nan")}, 60, id="not a number"),
        pytest.param({"expires_in": float("inf")}, 60, id="for ever"),
        pytest.param({"expires_in": 1e300}, 86400, id="almost for ever"),
        pytest.param({"expires_in": -5}, 60, id="negative"),
        pytest.param({"expires_in": 300, "issued_at": -200}, 100, id="issued a while ago"),
        pytest.param({"expires_in": 300, "issued_at": -4000}, 300, id="a wrong clock"),
        pytest.param({"expires_in": 300, "issued_at": 4000}, 300, id="a clock of the future"),
        pytest.param({"expires_in": 300, "issued_at": "yesterday"}, 300, id="no time"),
    ],
)
async def test_a_token_is_used_as_long_as_it_lives(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, object], life: int
) -> None:
    """Up to some seconds before; then the next one is fetched."""
    if isinstance(age := answer.get("issued_at"), int):
        stamp = datetime.fromtimestamp(time.time() + age, UTC).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")
        answer = {**answer, "issued_at": stamp}
    world = world_of(lambda w, _: w.grant("token", answer))
    real, ahead = time.monotonic, [0.0]
    monkeypatch.setattr("moorage.puller.tokens.time.monotonic", lambda: real() + ahead[0])
    async with connected(world, ALICE) as (_, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
        login: Login = registry._wire._login  # the only way to see what would be sent
        scope = next(iter(login._grants))
        for after, is_known in ((max(life - 20, 0), True), (life + 5, False)):
            ahead[0] = after
            assert (login.header(scope) is not None) == is_known


async def test_the_keychain_is_asked_when_a_registry_asks() -> None:
    """Not before, once for many tokens, for the repository that is written to; again when what it gave is refused."""

    class Counting:
        def __init__(self) -> None:
            self.asked: list[str] = []

        async def find(self, origin: Origin, repository: str = "") -> Credentials | None:
            self.asked.append(repository)
            return Credentials("alice", f"p{len(self.asked)}")

    keys, world = Counting(), world_of(lambda w, _: w.grant(), scope="")
    async with connected(world, keys) as (server, registry):
        server.answer = lambda seen: Reply(200)
        await registry.resolve_blob(_HERE, _BLOB.digest)
        assert keys.asked == []
        server.answer = world
        await registry.resolve_blob(_HERE, _BLOB.digest)
        with pytest.raises(OciError):
            await registry.mount_blob(_HERE, _BLOB.digest, source=_THERE)
        assert keys.asked == ["team/app"]
        world.valid = {"Bearer of others"}
        await registry.resolve_blob(_HERE, _BLOB.digest)
        assert keys.asked == ["team/app", "team/app"]
        assert world.asked[-1].headers["authorization"] == Credentials("alice", "p2").basic
