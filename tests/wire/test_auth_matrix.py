"""Every endpoint by every kind of credential by every outcome of the policy: a table says what must come of it.

Law: the table is written from the protocol and the policy of ``locked``, not from the code; an endpoint that is added
has no row, and that is a failure.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, get_args

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from moorage.auth.challenge import parse_challenges
from moorage.auth.limits import Limits
from moorage.registry.oci import Registry, RepositoryName, endpoints
from moorage.storage_backends.base import ObjectInfo
from moorage.storage_backends.memory import MemoryStore

from tests.content import blob, image, push, push_blobs
from tests.forge import Forger
from tests.stage import ON_STAGE
from tests.wire.locked import Locked, authority, basic, files, foundation, locked

__all__ = ["authority", "files", "foundation", "locked"]

pytestmark = ON_STAGE

IMAGE = image("the matrix")
LOOSE = blob("needed by no manifest")
NEW = blob("not there yet")
PULL, PUSH, DELETE, CATALOG = "pull", "pull,push", "delete", "*"


@dataclass(frozen=True)
class Row:
    """One endpoint: its request, the words of the scope that it needs, and its answer to who may.

    ``path`` may hold ``{name}``, and ``{upload}``: the Location of a session that the admin has begun.
    """

    method: str
    path: str
    scope: str
    status: int
    body: bytes = b""
    asked: str = ""
    """The scope of the challenge, where it is wider."""


BASE = "/v2/{name}"
ROWS = {
    endpoints.Ping: Row("GET", "/v2/", "", 200),
    endpoints.ListRepositories: Row("GET", "/v2/_catalog", CATALOG, 200),
    endpoints.GetBlob: Row("GET", f"{BASE}/blobs/{LOOSE.digest}", PULL, 200),
    endpoints.HeadBlob: Row("HEAD", f"{BASE}/blobs/{LOOSE.digest}", PULL, 200, asked=PUSH),
    endpoints.DeleteBlob: Row("DELETE", f"{BASE}/blobs/{LOOSE.digest}", DELETE, 202),
    endpoints.GetManifest: Row("GET", f"{BASE}/manifests/latest", PULL, 200),
    endpoints.HeadManifest: Row("HEAD", f"{BASE}/manifests/{IMAGE.digest}", PULL, 200),
    endpoints.PutManifest: Row("PUT", f"{BASE}/manifests/new", PUSH, 201, IMAGE.manifest.content),
    endpoints.DeleteManifest: Row("DELETE", f"{BASE}/manifests/{IMAGE.digest}", DELETE, 202),
    endpoints.StartUpload: Row("POST", f"{BASE}/blobs/uploads/?digest={NEW.digest}", PUSH, 201, NEW.content),
    endpoints.GetUpload: Row("GET", "{upload}", PUSH, 204),
    endpoints.AppendUpload: Row("PATCH", "{upload}", PUSH, 202, NEW.content),
    endpoints.FinishUpload: Row("PUT", f"{{upload}}?digest={NEW.digest}", PUSH, 201, NEW.content),
    endpoints.CancelUpload: Row("DELETE", "{upload}", PUSH, 204),
    endpoints.ListTags: Row("GET", f"{BASE}/tags/list", PULL, 200),
    endpoints.ListReferrers: Row("GET", f"{BASE}/referrers/{IMAGE.digest}", PULL, 200),
}

Headers = dict[str, str]
Shown = Callable[[Locked, str], Awaitable[Headers]]


async def test_every_endpoint_has_its_row() -> None:
    """One that is new has none yet."""
    assert set(ROWS) == set(get_args(endpoints.Endpoint))


# -- credentials -------------------------------------------------------------------------------------------------------


async def _nothing(_locked: Locked, _scope: str) -> Headers:
    return {}


def _header(value: str) -> Shown:
    async def show(_locked: Locked, _scope: str) -> Headers:
        return {"authorization": value}

    return show


def _basic(user: str, **password: str) -> Shown:
    async def show(_locked: Locked, _scope: str) -> Headers:
        return basic(user, **password)

    return show


def _token(user: str, scope: str = "") -> Shown:
    """A token of ours, for what is needed unless ``scope`` says otherwise."""

    async def show(locked: Locked, needed: str) -> Headers:
        return await locked.bearer(user, *(scope or needed).split())

    return show


def _forged(*, ours: bool = False, **claims: Any) -> Shown:
    """The admin's token with other claims; signed by a stranger unless it is ``ours``."""

    async def show(locked: Locked, needed: str) -> Headers:
        key = locked.authority.ring.current().signing
        now, access = int(time.time()), []
        for one in needed.split():
            kind, _, rest = one.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        good = {"iss": "moorage", "sub": "admin", "aud": "moorage", "iat": now, "nbf": now, "exp": now + 300}
        good |= {"jti": "x", "access": access}
        private: Any = key.private if ours else Ed25519PrivateKey.generate()
        forger = Forger(private, {"alg": key.algorithm, "kid": key.kid, "typ": "JWT"}, good)
        return {"authorization": f"Bearer {forger(**claims)}"}

    return show


KNOWN = {
    "a password": _basic("admin"),
    "a token": _token("admin"),
    "a token of another key's claims, signed by ours": _forged(ours=True),
}
"""Ways in for the admin, who may do everything."""

POWERLESS = {"a password": _basic("eve"), "a token that she asked for": _token("eve")}
"""Ways in for eve, whom the policy gives nothing."""

NARROW = {
    "a token for another repository": _token("admin", "repository:mine/other:pull,push,delete"),
    "a token for nothing": _token("admin", "repository:mine/boat:nothing"),
}
"""The admin's tokens, for something else."""

STRANGE = {
    "a wrong password": _basic("admin", password="x" * 73),  # that is refused at once: bcrypt's slowness has its tests
    "an unknown robot": _basic("robot+ci"),
    "a stranger's token": _forged(),
    "an expired token": _forged(ours=True, exp=int(time.time()) - 3600, iat=1, nbf=1),
    "a token of tomorrow": _forged(ours=True, nbf=int(time.time()) + 86400),
    "a token for another registry": _forged(ours=True, aud="another.example"),
    "a token of another issuer": _forged(ours=True, iss="another.example"),
    "a token of somebody who is gone": _forged(ours=True, sub="mallory"),
    "a token without an end": _forged(ours=True, exp=None),
    "no token at all": _header("Bearer"),
    "half a token": _header("Bearer eyJhbGciOiJFZERTQSJ9"),
    "an unsigned token": _header("Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."),
    "another scheme": _header("Negotiate YWRtaW4="),
    "the password bare": _header("admin"),
    "a user without a password": _header("Basic YWRtaW4="),
}
"""What nobody is let in for, wherever: also not where everybody is."""

STRANGE_CASES = {how: (show, 401, "invalid_token" if "token" in how else None) for how, show in STRANGE.items()}

# The limits of wrong logins are others' rule: here every kind of them is shown to every endpoint.


@pytest.fixture(autouse=True)
def no_limits(authority: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets wrong passwords be wrong as often as the table has them."""
    monkeypatch.setattr(authority, "_limits", Limits(clock=iter(range(0, 10**9, 10**4)).__next__))


# -- the table ---------------------------------------------------------------------------------------------------------


def _scope(row: Row, name: str, *, asked: bool = False) -> str:
    if not row.scope:
        return ""
    words = (asked and row.asked) or row.scope
    return f"registry:catalog:{words}" if row.scope == CATALOG else f"repository:{name}:{words}"


async def _fill(local: Registry, name: str) -> None:
    await push(local, RepositoryName(name), IMAGE, "latest")
    await push_blobs(local, RepositoryName(name), [LOOSE])


async def _ask(locked: Locked, row: Row, name: str, headers: Headers, upload: str = "") -> httpx.Response:
    path = row.path.format(name=name, upload=upload or f"/v2/{name}/blobs/uploads/{'x' * 80}")
    kind = IMAGE.manifest.media_type if "/manifests/" in path else "application/octet-stream"
    return await locked.wire.request(row.method, path, content=row.body, headers=headers | {"content-type": kind})


async def _state(store: MemoryStore) -> list[tuple[str, str]]:
    return [(one.key, one.version) async for one in store.list("") if isinstance(one, ObjectInfo)]


def _same(one: httpx.Response, other: httpx.Response) -> bool:
    """Whether nobody can tell the two apart."""
    varying = {"date", "x-request-id"}
    heads = [[pair for pair in answer.headers.multi_items() if pair[0] not in varying] for answer in (one, other)]
    return heads[0] == heads[1] and (one.status_code, one.content) == (other.status_code, other.content)


def _is_challenge(answer: httpx.Response, row: Row, name: str, error: str | None) -> bool:
    (challenge,) = parse_challenges(answer.headers.get_list("www-authenticate"))
    said = dict(challenge.parameters)
    wanted = {"service": "moorage", "realm": f"{answer.url.scheme}://{answer.url.netloc.decode()}/token"}
    wanted |= {"scope": _scope(row, name, asked=True)} if row.scope else {}
    return challenge.scheme == "bearer" and said == wanted | ({"error": error} if error else {})


each_endpoint = pytest.mark.parametrize("row", ROWS.values(), ids=[kind.__name__ for kind in ROWS])


@each_endpoint
@pytest.mark.parametrize("how", KNOWN)
async def test_who_may_is_let_in(locked: Locked, row: Row, how: str) -> None:
    """The admin, by password and by token, at an upload too that was begun the other way."""
    await _fill(locked.local, "mine/boat")
    begun = await locked.wire.post("/v2/mine/boat/blobs/uploads/", headers=basic("admin"))
    headers = await KNOWN[how](locked, _scope(row, "mine/boat"))
    answer = await _ask(locked, row, "mine/boat", headers, begun.headers["location"])
    assert answer.status_code == row.status, answer.text


@each_endpoint
async def test_the_others_are_not(locked: Locked, store: MemoryStore, row: Row) -> None:
    """403 for whom the policy refuses, else 401 that says what to get; nothing changes, and nothing is told (A18)."""
    empty: dict[str, httpx.Response] = {}
    cases = {
        **{f"eve by {how}": (show, 403, None) for how, show in POWERLESS.items()},
        **{how: (show, 401, "insufficient_scope") for how, show in NARROW.items()},
        "nothing": (_nothing, 401, None),
        "nobody's token": (_token(""), 401, "insufficient_scope"),
        **STRANGE_CASES,
    }
    if not row.scope:  # every login is good enough for the ping
        cases = {how: case for how, case in cases.items() if how in {*STRANGE, "nothing"}}
    headers = {how: await show(locked, _scope(row, "mine/boat")) for how, (show, _, _) in cases.items()}
    for how in cases:
        empty[how] = await _ask(locked, row, "mine/boat", headers[how])
    await _fill(locked.local, "mine/boat")
    begun = await locked.wire.post("/v2/mine/boat/blobs/uploads/", headers=basic("admin"))
    before = await _state(store)
    for how, (_, status, error) in cases.items():
        answer = await _ask(locked, row, "mine/boat", headers[how], begun.headers["location"])
        assert answer.status_code == status, (how, answer.text)
        assert status == 403 or _is_challenge(answer, row, "mine/boat", error), (how, answer.headers)
        assert _same(answer, empty[how]), how
    assert await _state(store) == before


@each_endpoint
async def test_what_is_open_to_everybody(locked: Locked, row: Row) -> None:
    """Below public/ everybody may pull, with whatever login, and do nothing else; a login that is wrong stays wrong."""
    await _fill(locked.local, "public/boat")
    good = {"nothing": _nothing, "nobody's token": _token(""), **POWERLESS}
    for how, show in good.items():
        headers = await show(locked, _scope(row, "public/boat"))
        answer = await _ask(locked, row, "public/boat", headers)
        named = how in POWERLESS
        if row.scope == PULL or (not row.scope and how != "nothing"):
            assert answer.status_code == row.status, (how, answer.text)
        else:
            assert answer.status_code == (403 if named else 401), (how, answer.text)
    for how, show in STRANGE.items():
        answer = await _ask(locked, row, "public/boat", await show(locked, _scope(row, "public/boat")))
        assert answer.status_code == 401, (how, answer.text)
    answer = await _ask(locked, row, "public/boat", basic("admin", "not the password"))
    assert answer.status_code == 401


async def test_t4_a_token_gets_no_token(locked: Locked) -> None:
    """Whoever shows the token endpoint what is wrong, or a token that is right, gets none, not even nobody's."""
    shown = STRANGE | {"a token": _token("admin", "repository:mine/boat:pull,push"), "its own": _forged(ours=True)}
    for how, show in shown.items():
        headers = await show(locked, "repository:mine/boat:pull")
        answer = await locked.wire.get("/token", params={"scope": "repository:mine/boat:pull"}, headers=headers)
        assert answer.status_code == 401, (how, answer.text)
        assert "access_token" not in answer.text
        answer = await locked.wire.post("/token", data={"grant_type": "password", "username": "x"}, headers=headers)
        assert answer.status_code in (400, 401), (how, answer.text)
        assert "access_token" not in answer.text


async def test_asking_for_much_takes_little(locked: Locked) -> None:
    """As many scopes as fit a form, before anybody has logged in: refused, not reckoned with for half a minute."""
    scopes = " ".join(f"repository:r{number}:pull" for number in range(2800))
    form = {"grant_type": "password", "service": "moorage", "username": "x", "password": "y", "scope": scopes}
    began = time.process_time()
    answer = await locked.wire.post("/token", data=form)
    assert answer.status_code in (400, 401, 413)
    assert time.process_time() - began < 2, "it took 3 s of this processor where each scope was added to all before"
