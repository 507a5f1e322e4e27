"""Tokens are had from every kind of token service there is, shared, renewed, and shown to nobody else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.auth.scope import Scope
from moorage.puller.credentials import Credentials, FixedKeychain, Keys
from moorage.puller.errors import BadAnswer, RateLimited
from moorage.puller.hosts import HostConfig
from moorage.puller.login import Login
from moorage.puller.messages import Request
from moorage.puller.origins import Origin
from moorage.puller.remote import RemoteRegistry
from moorage.puller.tokens import parse_token
from moorage.puller.transport import RetryPolicy, Transport
from moorage.registry.oci import Denied, OciError, Unauthorized

from tests.content import blob, repository
from tests.scripted import Reply, Scripted, Seen, scripted

_HERE, _THERE = repository("team/app"), repository("other/base")
_BLOB = blob("remote", 1000)
_ALICE = Credentials("alice", "s3cret")
_NAMES = st.sampled_from(["token", "access_token", "expires_in", "issued_at"])
_FAST = RetryPolicy(attempts=1)
_PULL = "repository:team/app:pull"

_UPLOAD = "/v2/team/app/blobs/uploads/1"

Token = Callable[[Seen], Reply]


def _json(status: int, document: Mapping[str, object]) -> Reply:
    return Reply(status, json.dumps(document).encode(), {"content-type": "application/json"})


def _fields(seen: Seen) -> list[tuple[str, str]]:
    """What a token service was told: the query, or the form of a POST."""
    return parse_qsl(seen.body.decode() if seen.method == "POST" else urlsplit(seen.target).query)


@dataclass
class World:
    """A registry that wants tokens, and the service that gives them, on one host."""

    token: Token
    challenge: str = 'Bearer realm="{url}/token",service="the service",scope="{scope}"'
    scope: str = _PULL
    url: str = ""
    valid: set[str] = field(default_factory=set)
    asked: list[Seen] = field(default_factory=list)

    def __call__(self, seen: Seen) -> Reply:
        if not seen.target.startswith("/v2/"):
            self.asked.append(seen)
            return self.token(seen)
        if seen.headers.get("authorization") in self.valid:
            return Reply(202, headers={"location": _UPLOAD}) if seen.method == "POST" else Reply(200)
        challenge = self.challenge.format(url=self.url, scope=self.scope)
        return Reply(401, headers={"www-authenticate": challenge})

    def grant(self, name: str = "token", more: Mapping[str, object] = MappingProxyType({})) -> Reply:
        """A new token, and nothing but it and ``more`` in the answer."""
        token = f"t{len(self.valid)}"
        self.valid.add(f"Bearer {token}")
        return _json(200, {name: token, **more})


@asynccontextmanager
async def _connected(world: World, keys: Keys | Credentials | None) -> AsyncIterator[tuple[Scripted, RemoteRegistry]]:
    keychain = FixedKeychain(keys) if keys is None or isinstance(keys, Credentials) else keys
    async with (
        scripted(world) as server,
        RemoteRegistry.connect(server.host, keychain=keychain, hosts=HostConfig.empty(), retry=_FAST) as registry,
    ):
        world.url = server.url
        yield server, registry


def _world(token: Callable[[World, Seen], Reply], challenge: str = World.challenge, scope: str = _PULL) -> World:
    world = World(lambda seen: token(world, seen), challenge, scope)
    return world


def _if_basic(user: Credentials, reply: Callable[[World], Reply]) -> Callable[[World, Seen], Reply]:
    """A service for GET with user and password, that knows no other flow."""

    def answer(world: World, seen: Seen) -> Reply:
        if seen.method != "GET":
            return Reply(405)
        return reply(world) if seen.headers.get("authorization") == user.basic else _json(401, {"details": "wrong"})

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
            reply(world) if expected.items() <= dict(_fields(seen)).items() else _json(400, {"error": "invalid_grant"})
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
            _if_basic(_ALICE, lambda world: world.grant("token", _FULL)), _ALICE, ["GET"],
            id="Docker Hub, Harbor: both names, a life, a time",
        ),
        pytest.param(_if_basic(_ALICE, World.grant), _ALICE, ["GET"], id="ghcr.io, Quay, GitLab: only a token"),
        pytest.param(lambda world, _: world.grant(), None, ["GET"], id="anonymous"),
        pytest.param(_if_basic(_GOOGLE, World.grant), _GOOGLE, ["GET"], id="Google: a document for a password"),
        pytest.param(
            _if_basic(Credentials(_GUID, "refresh"), _access), Credentials(_GUID, "refresh"), ["GET"],
            id="Azure: a refresh token for a password, only access_token",
        ),
        pytest.param(_if_form(_access, 401, _REFRESH), _AZURE, ["POST"], id="Azure, Docker Hub: identity token"),
        pytest.param(_if_form(World.grant, 405, _PASSWORD), _ALICE, ["GET", "POST"], id="only POST, says 405"),
        pytest.param(_if_form(World.grant, 404, _PASSWORD), _ALICE, ["GET", "POST"], id="only POST, says 404"),
        pytest.param(_if_basic(_ALICE, World.grant), _BOTH, ["POST", "GET"], id="only GET, and an identity token"),
    ],
)  # fmt: skip
async def test_every_flow(
    token: Callable[[World, Seen], Reply], credentials: Credentials | None, flow: list[str]
) -> None:
    """One token by the flow that the service speaks, for service and scope as the challenge has them."""
    world = _world(token)
    async with _connected(world, credentials) as (_, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
        await registry.resolve_blob(_HERE, _BLOB.digest)
    assert [seen.method for seen in world.asked] == flow
    for seen in world.asked:
        told = dict(_fields(seen))
        assert (told["service"], told["scope"]) == ("the service", _PULL)
        assert told.get("account") == (credentials.username if credentials and seen.method == "GET" else None)


async def test_basic_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Amazon ECR and plain htpasswd: sent with every request from then on; a second refusal is final."""
    user = Credentials("AWS", "x" * 2000)

    def answer(seen: Seen) -> Reply:
        is_user = seen.headers.get("authorization") == user.basic
        return Reply(200) if is_user else Reply(401, headers={"www-authenticate": 'Basic realm="r",service="ecr"'})

    world = World(lambda seen: Reply(500))
    monkeypatch.setattr(World, "__call__", lambda self, seen: answer(seen))
    async with _connected(world, user) as (server, registry):
        for _ in range(2):
            await registry.resolve_blob(_HERE, _BLOB.digest)
        assert len(server.seen) == 3
    async with _connected(world, Credentials("mallory", "x")) as (server, registry):
        with pytest.raises(Unauthorized):
            await registry.resolve_blob(_HERE, _BLOB.digest)
        assert len(server.seen) == 2


async def test_a_registry_token_is_shown_as_it_is() -> None:
    """To the registry, with no detour."""
    world = _world(World.grant)  # type: ignore[arg-type]
    world.valid = {"Bearer given"}
    async with _connected(world, Credentials(registry_token="given")) as (server, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
        assert len(server.seen) == 2
        world.valid = set()
        with pytest.raises(Unauthorized):
            await registry.resolve_blob(_HERE, _BLOB.digest)
    assert world.asked == []


async def test_bearer_goes_before_basic() -> None:
    """Where both are offered, on one line or two (Gitea)."""
    world = _world(lambda w, _: w.grant(), challenge='Basic realm="b", Bearer realm="{url}/token?a=b"')
    async with _connected(world, _ALICE) as (_, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
    assert [urlsplit(seen.target).query for seen in world.asked] == [
        "a=b&scope=repository%3Ateam%2Fapp%3Apull&account=alice"
    ]


async def test_one_token_serves_what_it_covers() -> None:
    """A token to push is one to pull; each other scope has its own; a mount asks for both repositories at once."""
    world = _world(lambda w, _: w.grant(), scope="")
    async with _connected(world, _ALICE) as (_, registry):
        await registry.start_upload(_HERE)
        await registry.resolve_blob(_HERE, _BLOB.digest)
        await registry.resolve_blob(_THERE, _BLOB.digest)
        with pytest.raises(OciError):
            await registry.mount_blob(_HERE, _BLOB.digest, source=_THERE)
    scopes = [[value for name, value in _fields(seen) if name == "scope"] for seen in world.asked]
    assert scopes == [
        ["repository:team/app:pull,push"],
        ["repository:other/base:pull"],
        ["repository:other/base:pull", "repository:team/app:pull,push"],
    ]  # fmt: skip


async def test_requests_that_are_refused_together_log_in_once() -> None:
    """And share the token."""
    world = _world(lambda w, _: w.grant())
    async with _connected(world, _ALICE) as (_, registry):
        await asyncio.gather(*(registry.resolve_blob(_HERE, _BLOB.digest) for _ in range(20)))
    assert len(world.asked) == 1


async def test_a_wrong_password_is_tried_once() -> None:
    """By all requests together, so that nobody is locked out for one mistake."""
    world = _world(lambda w, _: _json(401, {"details": "incorrect username or password"}))
    async with _connected(world, _ALICE) as (_, registry):
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
    world = _world(lambda w, _: _json(401, {"details": "incorrect username or password"}))
    scope = Scope.parse(_PULL)
    async with _connected(world, _ALICE) as (server, registry):
        login: Login = registry._wire._login  # the only way to decide what comes first
        async with registry._wire._transport.exchange(Request("GET", f"{server.url}/v2/")) as answer:
            for sent_after, asked in ((0, 1), (0, 1), (1, 2)):
                with pytest.raises(Unauthorized):
                    await login.answer_challenge(scope, answer, sent=None, failures=sent_after)
                assert len(world.asked) == asked


async def test_a_token_that_is_no_longer_taken_is_replaced_once() -> None:
    """Not for ever."""
    world = _world(lambda w, _: w.grant())
    async with _connected(world, _ALICE) as (server, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
        world.valid = {"Bearer of others"}
        await registry.resolve_blob(_HERE, _BLOB.digest)
        before = len(server.seen)

        def stubborn(seen: Seen) -> Reply:
            world.valid = set()
            return world(seen)

        server.answer = stubborn
        with pytest.raises(Unauthorized, match=f"not permitted to 'alice': {_PULL}"):
            await registry.resolve_blob(_HERE, _BLOB.digest)
        assert len(server.seen) - before == 3


async def test_a_head_that_is_denied() -> None:
    """Has no body that could say so: we say who may not do what, with the first token and with a later one."""
    world = _world(lambda w, _: w.grant())
    async with _connected(world, _ALICE) as (server, registry):
        good = server.answer
        server.answer = lambda seen: Reply(403) if good(seen).status == 200 and "/v2/" in seen.target else good(seen)
        for _ in range(2):
            with pytest.raises(Denied, match=f"not permitted to 'alice': {_PULL}"):
                await registry.resolve_blob(_HERE, _BLOB.digest)


async def test_a_registry_may_want_more() -> None:
    """The scope of an insufficient_scope challenge is asked for besides our own."""
    world = _world(lambda w, _: w.grant(), scope="repository:team/base:pull repository:team/app:metadata_read")
    async with _connected(world, _ALICE) as (_, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
    assert [value for name, value in _fields(world.asked[0]) if name == "scope"] == [
        "repository:team/app:metadata_read,pull", "repository:team/base:pull",
    ]  # fmt: skip


@pytest.mark.parametrize("scope", ["nonsense", "aws", '\\"', "a:b:c:"])
async def test_a_scope_that_is_none_is_not_asked_for(scope: str) -> None:
    """Ours is enough."""
    world = _world(lambda w, _: w.grant(), scope=scope)
    async with _connected(world, _ALICE) as (_, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
    assert dict(_fields(world.asked[0]))["scope"] == _PULL


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
    world = _world(lambda w, _: w.grant("token", answer))
    real, ahead = time.monotonic, [0.0]
    monkeypatch.setattr("moorage.puller.tokens.time.monotonic", lambda: real() + ahead[0])
    async with _connected(world, _ALICE) as (_, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
        login: Login = registry._wire._login  # the only way to see what would be sent
        scope = next(iter(login._grants))
        for after, is_known in ((max(life - 20, 0), True), (life + 5, False)):
            ahead[0] = after
            assert (login.header(scope) is not None) == is_known


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
    async with _connected(world, _ALICE) as (_, registry):
        with pytest.raises(error) as caught:
            await registry.resolve_blob(_HERE, _BLOB.digest)
    assert "s3cret" not in str(caught.value)
    assert _ALICE.basic not in str(caught.value)


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
    world = _world(lambda w, _: w.grant(), challenge=f'Bearer realm="{realm}"')
    async with _connected(world, _ALICE) as (server, registry):
        with pytest.raises(BadAnswer):
            await registry.resolve_blob(_HERE, _BLOB.digest)
        assert len(server.seen) == 1


async def test_a_redirected_token_request_loses_its_login() -> None:
    """Another origin is not shown the password."""
    elsewhere = World(lambda seen: _json(200, {"token": "stolen"}))
    async with scripted(elsewhere) as other:
        moved = Reply(307, headers={"location": f"{other.url}/token"})
        world = World(lambda seen: moved, valid={"Bearer stolen"})
        async with _connected(world, _ALICE) as (server, registry):
            await registry.resolve_blob(_HERE, _BLOB.digest)
        assert "authorization" in server.seen[1].headers
        assert ["authorization" in seen.headers for seen in elsewhere.asked] == [False]


async def test_a_form_is_not_redirected() -> None:
    """It holds the refresh token."""
    world = World(lambda seen: Reply(307, headers={"location": "/elsewhere"}))
    async with _connected(world, Credentials(identity_token="idt")) as (server, registry):
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
    async with _connected(world, credentials) as (server, registry):
        with pytest.raises(Unauthorized) as caught:
            await registry.resolve_blob(_HERE, _BLOB.digest)
        assert said in caught.value.message
        assert all("authorization" not in seen.headers for seen in server.seen)


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        (None, "not permitted without a login (moorage login 127.0.0.1:"),
        (_ALICE, "not permitted to 'alice': repository:"),
    ],
)
@pytest.mark.parametrize("is_granted", [True, False], ids=["a token good for nothing", "403"])
async def test_what_is_not_permitted_is_said(credentials: Credentials | None, said: str, is_granted: bool) -> None:
    """Whether the token service refuses (ghcr.io, GitLab) or the registry (Docker Hub)."""
    world = World(lambda seen: _json(200, {"token": "t"}) if is_granted else Reply(403))
    async with _connected(world, credentials) as (_, registry):
        with pytest.raises(Unauthorized if is_granted else Denied) as caught:
            await registry.resolve_blob(_HERE, _BLOB.digest)
    assert said in caught.value.message
    assert _PULL in caught.value.message


async def test_the_keychain_is_asked_when_a_registry_asks() -> None:
    """Not before, once for many tokens, for the repository that is written to; again when what it gave is refused."""

    class Counting:
        def __init__(self) -> None:
            self.asked: list[str] = []

        async def find(self, origin: Origin, repository: str = "") -> Credentials | None:
            self.asked.append(repository)
            return Credentials("alice", f"p{len(self.asked)}")

    keys, world = Counting(), _world(lambda w, _: w.grant(), scope="")
    async with _connected(world, keys) as (server, registry):
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


async def test_secrets_do_not_print() -> None:
    """Neither credentials nor tokens, wherever they are kept."""
    world = _world(lambda w, _: w.grant())
    world.valid = {"Bearer s3cret-token"}
    world.token = lambda seen: _json(200, {"token": "s3cret-token"})
    async with _connected(world, _ALICE) as (_, registry):
        await registry.resolve_blob(_HERE, _BLOB.digest)
        login: Login = registry._wire._login
        shown = f"{login!r} {registry!r} {login._grants!r} {login._found!r} {_ALICE!r}"
    assert "s3cret" not in shown


async def test_a_registry_without_a_challenge_is_not_answered() -> None:
    """A 401 that asks for nothing we know stays one."""
    async with Transport(retry=_FAST) as transport:
        world = World(lambda seen: Reply(500), 'Negotiate, Digest realm="r"')
        async with _connected(world, _ALICE) as (server, registry):
            with pytest.raises(Unauthorized):
                await registry.resolve_blob(_HERE, _BLOB.digest)
            assert len(server.seen) == 1
        assert repr(Login(transport, Origin.of("https://h"), FixedKeychain(_ALICE))) == "<Login to https://h>"
