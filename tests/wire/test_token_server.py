"""The token server: what clients get for which credentials, and what they are told when they get nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from pathlib import Path

import httpx
import jwt
import pytest
import pytest_asyncio
from moorage.auth.refresh import PREFIX
from moorage.registry.auth_state import StoredState
from moorage.registry.oci import Registry
from moorage.registry.outbound import Outbound
from moorage.registry.settings import load_settings
from moorage.registry.web.app import create_app
from moorage.registry.web.authority import Authority, lay_foundation
from moorage.registry.web.gate import Gate
from moorage.registry.web.login import TokenServer
from moorage.storage_backends.memory import MemoryStore

from tests.stage import ON_STAGE, Stage
from tests.wire.locked import PASSWORD, Locked, authority, basic, files, foundation, locked
from tests.wire.talk import assert_error

__all__ = ["authority", "files", "foundation", "locked"]

pytestmark = ON_STAGE

PULL, PUSH = "repository:mine/boat:pull", "repository:mine/boat:pull,push"


def claims_of(token: str) -> dict[str, object]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def password_form(user: str, **more: str) -> dict[str, str]:
    return {"grant_type": "password", "username": user, "password": PASSWORD, "service": "moorage", **more}


def access_of(token: str) -> dict[str, list[str]]:
    entries = claims_of(token)["access"]
    assert isinstance(entries, list)
    return {f"{one['type']}:{one['name']}": one["actions"] for one in entries}


# -- GET ---------------------------------------------------------------------------------------------------------------


async def test_a_token_by_get(locked: Locked) -> None:
    """Both of its names, for clients of either kind; at least 60 s; the time in UTC; kept by no cache."""
    fields = {"service": "moorage", "scope": PUSH, "account": "alice", "client_id": "docker", "offline_token": "true"}
    answer = await locked.wire.get("/token", params=fields, headers=basic("alice"))
    document = answer.json()
    assert set(document) == {"token", "access_token", "expires_in", "issued_at"}
    assert document["token"] == document["access_token"]
    assert document["expires_in"] >= 60
    assert abs(datetime.fromisoformat(document["issued_at"]).timestamp() - time.time()) < 120
    assert answer.headers["cache-control"] == "no-store"
    claims = claims_of(document["token"])
    assert (claims["sub"], claims["aud"], claims["iss"]) == ("alice", "moorage", "moorage")
    assert access_of(document["token"]) == {"repository:mine/boat": ["pull", "push"]}


@pytest.mark.parametrize(
    ("user", "scopes", "granted"),
    [
        pytest.param("carol", [PUSH], {"repository:mine/boat": ["pull"]}, id="a part"),
        pytest.param("eve", [PUSH], {}, id="nothing"),
        pytest.param("", [PUSH, "repository:public/boat:pull,push"], {"repository:public/boat": ["pull"]}, id="nobody"),
        pytest.param("alice", ["repository:mine/boat:*"], {"repository:mine/boat": ["delete", "pull", "push"]}, id="*"),
        pytest.param("alice", ["repository:**:pull", "repository:mine/*:pull"], {}, id="T6: no wildcards"),
        pytest.param("alice", ["registry:catalog:*"], {"registry:catalog": ["*"]}, id="catalog"),
        pytest.param("bob", ["registry:catalog:*"], {}, id="no catalog"),
        pytest.param("alice", ["", "nonsense", "a:b", PULL], {"repository:mine/boat": ["pull"]}, id="nonsense"),
        pytest.param("alice", [], {}, id="a login"),
        pytest.param(
            "alice",
            [f"{PULL} repository:mine/dock:pull", "repository:theirs/boat:pull"],
            {"repository:mine/boat": ["pull"], "repository:mine/dock": ["pull"]},
            id="several",
        ),
        pytest.param("alice", ["repository(plugin):mine/boat:pull", "plugin:mine/boat:pull"], {}, id="other kinds"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_granted_is_requested_and_permitted(
    locked: Locked, user: str, scopes: list[str], granted: dict[str, list[str]], method: str
) -> None:
    """A part of what was asked for, or nothing, is no error; more is never granted (T6)."""
    if method == "GET":
        token = await locked.token(user, *scopes)
    elif not user:
        return  # POST always has credentials
    else:
        answer = await locked.wire.post("/token", data=password_form(user, scope=" ".join(scopes)))
        token = answer.json()["access_token"]
    assert access_of(token) == granted


async def test_wrong_credentials_are_401(locked: Locked) -> None:
    """The one error of a login; whether there is such a user is not said."""
    answers = [
        await locked.wire.get("/token", headers=basic("alice", "wrong once")),
        await locked.wire.get("/token", headers=basic("nobody-here", "wrong twice")),
        await locked.wire.get("/token", headers={"authorization": "Bearer x"}),
        await locked.wire.post("/token", data={**password_form("alice"), "password": "wrong thrice"}),
        await locked.wire.post("/token", data={"grant_type": "refresh_token", "refresh_token": "mrgr_none"}),
    ]
    for answer in answers:
        assert_error(answer, 401, "UNAUTHORIZED")
        assert answer.headers.get_list("www-authenticate") == ['Basic realm="moorage"']
    assert answers[0].content == answers[1].content == answers[3].content


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_t4_tokens_are_for_this_service(locked: Locked, method: str) -> None:
    """T4: an audience of the client's choice is refused, before any password is looked at."""
    if method == "GET":
        answer = await locked.wire.get("/token?service=elsewhere", headers=basic("alice"))
    else:
        answer = await locked.wire.post("/token", data=password_form("alice", service="elsewhere"))
    assert_error(answer, 400, "REQUEST_INVALID")
    assert_error(await locked.wire.get("/token?service=moorage&service=elsewhere"), 400, "REQUEST_INVALID")


async def test_t8_no_secret_in_a_url(locked: Locked) -> None:
    """T8: a token or a password in a query logs nobody in."""
    token = await locked.token("alice", PULL)
    for query in (f"access_token={token}", f"token={token}", f"authorization=Bearer+{token}"):
        assert (await locked.wire.get(f"/v2/?{query}")).status_code == 401
    answer = await locked.wire.get("/token", params={"username": "alice", "password": PASSWORD, "scope": PULL})
    assert access_of(answer.json()["token"]) == {}


@pytest.mark.parametrize(
    "query",
    ["redirect_uri=https://evil.example/", "redirect_uri=//evil.example", "next=/\\evil.example", "return_to=%0d%0a"],
)
async def test_t16_nobody_is_sent_anywhere(locked: Locked, query: str) -> None:
    """T16: a login has no redirect, so none can be open; nor has any path near it."""
    for path in ("/token", "/token/", "//token", "/v2/", "/v2", "/.well-known/jwks.json", "/.well-known/jwks.json/"):
        for headers in ({}, basic("alice")):
            answer = await locked.wire.get(f"{path}?{query}", headers=headers)
            assert not 300 <= answer.status_code < 400
            assert "location" not in answer.headers
            assert b"evil" not in answer.content


# -- POST --------------------------------------------------------------------------------------------------------------


async def test_a_token_by_post(locked: Locked) -> None:
    """The OAuth2 flow that containerd tries first; a refresh token only where it is asked for."""
    answer = await locked.wire.post("/token", data=password_form("carol", scope=PUSH, client_id="containerd-client"))
    document = answer.json()
    assert answer.status_code == 200
    assert set(document) == {"token", "access_token", "expires_in", "issued_at", "scope"}
    assert document["scope"] == PULL
    assert answer.headers["cache-control"] == "no-store"


async def test_refresh_tokens_turn(locked: Locked) -> None:
    """Asked for by access_type=offline; each is good for one more token and the next of its kind."""
    answer = await locked.wire.post("/token", data=password_form("alice", scope=PULL, access_type="offline"))
    first = answer.json()["refresh_token"]
    assert first.startswith(PREFIX)
    form = {"grant_type": "refresh_token", "service": "moorage", "client_id": "docker", "scope": PUSH}
    answer = await locked.wire.post("/token", data={**form, "refresh_token": first})
    second = answer.json()["refresh_token"]
    assert second != first
    assert access_of(answer.json()["access_token"]) == {"repository:mine/boat": ["pull", "push"]}
    answer = await locked.wire.post("/token", data={**form, "refresh_token": second})
    third = answer.json()["refresh_token"]
    assert_error(await locked.wire.post("/token", data={**form, "refresh_token": first}), 401, "UNAUTHORIZED")
    assert_error(await locked.wire.post("/token", data={**form, "refresh_token": third}), 401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    ("form", "status"),
    [
        pytest.param({}, 400, id="empty"),
        pytest.param({"grant_type": "client_credentials"}, 400, id="another grant"),
        pytest.param({"grant_type": "password"}, 401, id="no password"),
        pytest.param({"grant_type": "refresh_token"}, 401, id="no refresh token"),
        pytest.param({"grant_type": ["password", "refresh_token"]}, 400, id="two grants"),
        pytest.param({"grant_type": "password", "filler": "x" * 65536}, 413, id="A11: too large"),
        pytest.param({f"field{number}": "" for number in range(600)}, 413, id="A11: too many fields"),
        pytest.param({"grant_type": "password", "scope": "a:b:c " * 300}, 400, id="too many scopes"),
    ],
)
async def test_a_form_that_is_wrong(locked: Locked, form: dict[str, str], status: int) -> None:
    """Never 403, 422 or 500: at those containerd gives up instead of trying GET."""
    assert (await locked.wire.post("/token", data=form)).status_code == status


async def test_a_body_that_is_no_form(locked: Locked) -> None:
    """JSON is not what OAuth2 sends; a form may come in chunks, and may not grow beyond its limit in them."""
    assert_error(await locked.wire.post("/token", json=password_form("alice")), 400, "REQUEST_INVALID")
    kind = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}

    async def chunks(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    good = str(httpx.QueryParams(password_form("alice"))).encode()
    wholes: list[tuple[Iterable[bytes], int]] = [((good[:10], good[10:]), 200), ([b"x" * 1000] * 100, 413)]
    for parts, status in wholes:
        answer = await locked.wire.post("/token", content=chunks(parts), headers=kind)
        assert answer.status_code == status


async def test_other_methods(locked: Locked) -> None:
    """405 and what is allowed."""
    for path, methods in (("/token", "GET, POST"), ("/.well-known/jwks.json", "GET, HEAD")):
        answer = await locked.wire.put(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)


# -- keys, limits, kinds of set-up -------------------------------------------------------------------------------------


async def test_anybody_can_check_our_tokens(locked: Locked) -> None:
    """The published keys verify what we sign, by another library's reading of them."""
    keys = jwt.PyJWKSet.from_dict((await locked.wire.get("/.well-known/jwks.json")).json())
    token = await locked.token("alice", PULL)
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=["EdDSA"], audience="moorage", issuer="moorage", leeway=30)
    assert claims["sub"] == "alice"
    assert not [one for one in keys.keys if "d" in (one._jwk_data or {})]


async def open_with(files: Path, policy: str, **more: object) -> Authority:
    path = files / f"{abs(hash(policy))}.yaml"
    path.write_text(policy)
    flags = {"root": str(files / "root"), "auth": str(path), **more}
    return Authority(lay_foundation(load_settings(flags, {}).settings), StoredState(MemoryStore()), Outbound())


@pytest_asyncio.fixture(loop_scope="session")
async def plain(stage: Stage, local: Registry, files: Path) -> AsyncIterator[Authority]:
    """Without a token server."""
    authority = await open_with(files, "htpasswd: accounts\nbasic_only: true\n")
    stage.show(create_app(local, gate=Gate(local, authority), tokens=TokenServer(authority)))
    yield authority
    authority.close()


async def test_basic_only(wire: httpx.AsyncClient, plain: Authority) -> None:
    """The challenge is Basic, there is no token to be had (404: so clients know), and Basic lets in."""
    answer = await wire.get("/v2/")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Basic realm="moorage"')
    assert (await wire.get("/v2/", headers=basic("alice"))).status_code == 200
    assert (await wire.get("/token", headers=basic("alice"))).status_code == 404
    assert (await wire.post("/token", data=password_form("alice"))).status_code == 404


async def test_too_many_failures_wait(
    wire: httpx.AsyncClient, stage: Stage, local: Registry, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """429 with the seconds to wait, at the token server and at the gate alike; T8: no password in any log."""
    caplog.set_level(logging.DEBUG)
    authority = await open_with(files, "htpasswd: accounts\n# limits\n")
    stage.show(create_app(local, gate=Gate(local, authority), tokens=TokenServer(authority)))
    for path in ("/token", "/v2/"):
        for _ in range(
            12
        ):  # on a slow machine a wait may be over before the next attempt; but each wait is twice as long
            answer = await wire.get(path, headers=basic("alice", "a canary in the mine"))
            if answer.status_code != 401:
                break
        assert_error(answer, 429, "TOOMANYREQUESTS")
        assert int(answer.headers["retry-after"]) >= 1
    assert (await wire.get("/v2/", headers=basic("bob"))).status_code == 200, "nobody else is locked out"
    assert "canary" not in caplog.text
    authority.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits for what comes with the next look at a file."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110  # the file is looked at when a request comes
            await asyncio.sleep(0.05)


async def test_t5_the_configuration_is_followed(
    wire: httpx.AsyncClient, stage: Stage, local: Registry, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """T5: what is taken away is gone, for tokens that are out already, too; a file that is wrong changes nothing."""
    policy = "anonymous: [{repositories: ['a/**'], actions: [pull]}]\n"
    authority = await open_with(files, policy)
    file = files / f"{abs(hash(policy))}.yaml"
    stage.show(create_app(local, gate=Gate(local, authority), tokens=TokenServer(authority)))
    token = (await wire.get("/token?scope=repository:a/b:pull")).json()["token"]
    headers = {"authorization": f"Bearer {token}"}

    async def status() -> int:
        return (await wire.get("/v2/a/b/tags/list", headers=headers)).status_code

    assert await status() == 404
    file.write_text("anonymous: nonsense\n")

    async def is_refused() -> bool:
        assert await status() == 404
        return "stays in use" in caplog.text

    await until(is_refused)
    file.write_text("anonymous: [{repositories: ['other/**'], actions: [pull]}]\n")

    async def is_gone() -> bool:
        return await status() == 401

    await until(is_gone)
    authority.close()
