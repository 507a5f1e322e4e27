"""The gate before ``/v2``: who is let in, that the others learn nothing by it, and what is written down."""

from __future__ import annotations

import asyncio
import json
import math
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from moorage.auth.principal import ANONYMOUS, Principal
from moorage.auth.scope import Scope
from moorage.auth.state import RECENT
from moorage.registry.oci import ManifestUnknown, RepositoryName, Tag, Unauthorized
from moorage.registry.oci.routes import Endpoint, parse
from moorage.registry.web.app import create_app
from moorage.registry.web.audit import AuditLog
from moorage.registry.web.gate import _RECENTLY, Gate, _Caller, _Recent
from moorage.registry.web.login import TokenServer
from moorage.registry.wrap.read_only import NoDelete, ReadOnly

from tests.content import blob, image, push
from tests.stage import ON_STAGE, Stage
from tests.wire.gated import IMAGE, LAYER, MINE, challenge_of, fill, requests_of, spoken
from tests.wire.locked import PASSWORD, Locked, authority, basic, files, foundation, locked

__all__ = ["authority", "files", "foundation", "locked"]

pytestmark = ON_STAGE

NEW = blob("not there yet")
UPLOADS = "/v2/mine/boat/blobs/uploads/"
SCOPES = ("repository:mine/boat:pull,push", "repository:theirs/boat:pull")
OTHERS = ("carol", "dora", "eve", "bob")


# -- who may -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["basic", "bearer"])
@pytest.mark.parametrize(("method", "path", "scope"), MINE, ids=spoken(MINE))
async def test_t6_basic_and_bearer_come_to_the_same(
    locked: Locked, method: str, path: str, scope: str, kind: str
) -> None:
    """T6: one function decides; whoever may do nothing is refused every way in, with 403."""
    await fill(locked.local, "mine/boat")
    headers = basic("eve") if kind == "basic" else await locked.bearer("eve", *scope.split())
    answer = await locked.wire.request(method, path, headers=headers)
    assert answer.status_code == 403
    assert method == "HEAD" or answer.json()["errors"][0]["code"] == "DENIED"
    assert "www-authenticate" not in answer.headers
    assert (await locked.local.resolve_manifest(RepositoryName("mine/boat"), Tag("latest"))).digest == IMAGE.digest


@pytest.mark.parametrize("kind", ["nobody", "an anonymous token", "somebody who may do nothing"])
async def test_what_is_open_is_open_to_all(locked: Locked, kind: str) -> None:
    """Anonymous pull with and without credentials; nothing else of it is open."""
    await fill(locked.local, "public/boat")
    headers = {
        "nobody": {},
        "an anonymous token": await locked.bearer("", "repository:public/boat:pull,push"),
        "somebody who may do nothing": basic("eve"),
    }[kind]
    for method, path in (("GET", "manifests/latest"), ("GET", f"blobs/{LAYER}"), ("HEAD", f"blobs/{LAYER}")):
        assert (await locked.wire.request(method, f"/v2/public/boat/{path}", headers=headers)).status_code == 200
    refused = await locked.wire.delete("/v2/public/boat/manifests/latest", headers=headers)
    assert refused.status_code == (403 if kind.startswith("somebody") else 401)


@pytest.mark.parametrize("path", [path for method, path, _ in requests_of("theirs/boat") if method == "GET"])
@pytest.mark.parametrize("who", ["", "alice"], ids=["nobody", "somebody"])
async def test_a18_absent_and_forbidden_are_one(locked: Locked, path: str, who: str) -> None:
    """A18: status, headers and body of a refusal are the same whether the thing is there or not."""
    headers = basic(who) if who else {}
    absent = await locked.wire.get(path, headers=headers)
    await fill(locked.local, "theirs/boat")
    there = await locked.wire.get(path, headers=headers)
    assert there.status_code == (403 if who else 401)
    assert (absent.status_code, absent.content) == (there.status_code, there.content)
    varying = {"date", "x-request-id"}
    kept = [[pair for pair in answer.headers.multi_items() if pair[0] not in varying] for answer in (absent, there)]
    assert kept[0] == kept[1]


async def test_t7_two_tenants(locked: Locked) -> None:
    """T7: knowing a digest of somebody else's opens nothing: not by GET, HEAD, mount, nor by saying it is ours."""
    await fill(locked.local, "theirs/boat")
    mine = basic("alice")
    for method in ("GET", "HEAD"):
        for name, status in (("theirs/boat", 403), ("mine/boat", 404)):
            answer = await locked.wire.request(method, f"/v2/{name}/blobs/{LAYER}", headers=mine)
            assert answer.status_code == status
    queries = [
        f"mount={digest}{more}" for digest in (LAYER, NEW.digest) for more in ("", "&from=theirs/boat", "&from=a")
    ]
    answers = [await locked.wire.post(f"{UPLOADS}?{query}", headers=mine) for query in queries]
    assert {answer.status_code for answer in answers} == {202}
    assert {tuple(sorted(answer.headers)) for answer in answers} == {tuple(sorted(answers[0].headers))}
    manifest = await locked.wire.put(
        "/v2/mine/boat/manifests/latest",
        content=IMAGE.manifest.content,
        headers=mine | {"content-type": IMAGE.manifest.media_type},
    )
    assert manifest.status_code == 404
    # A push of bytes that the store has already must still bring them.
    answer = await locked.wire.post(f"{UPLOADS}?digest={LAYER}", content=b"", headers=mine)
    assert answer.json()["errors"][0]["code"] == "DIGEST_INVALID"


async def test_a_mount_from_where_one_may_pull(locked: Locked) -> None:
    """With the token that the challenge asked for; with one that is not for the source, a 401 says so."""
    await fill(locked.local, "public/boat")
    path = f"{UPLOADS}?mount={LAYER}&from=public/boat"
    scopes = challenge_of(await locked.wire.post(path)).parameters["scope"].split()
    for scope in ("repository:mine/boat:pull,push", "repository:mine/boat:push"):
        parameters = challenge_of(await locked.wire.post(path, headers=await locked.bearer("alice", scope))).parameters
        assert (parameters["error"], parameters["scope"].split()) == ("insufficient_scope", scopes)
    assert (await locked.wire.post(path, headers=await locked.bearer("alice", *scopes))).status_code == 201


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
async def test_a15_uploads_are_of_who_began_them(locked: Locked, method: str) -> None:
    """A15: a Location is good for its user and its repository, 404 for everybody else who may push there."""
    began = await locked.wire.post(UPLOADS, headers=basic("alice"))
    location = began.headers["location"]
    query = f"?digest={NEW.digest}" if method == "PUT" else ""
    for who, path in (
        ("admin", location),
        ("dora", location),
        ("alice", location.replace("mine/boat", "mine/other")),
        ("alice", location[:-3] + ("AAA" if location[-3:] != "AAA" else "BBB")),
    ):
        answer = await locked.wire.request(method, path + query, content=b"", headers=basic(who))
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "BLOB_UPLOAD_UNKNOWN"), who
    bearer = await locked.bearer("alice", "repository:mine/boat:push")
    finished = await locked.wire.put(f"{location}?digest={NEW.digest}", content=NEW.content, headers=bearer)
    assert finished.status_code == 201, "the same user, by another way of logging in"


@pytest.mark.parametrize("switch", [ReadOnly, NoDelete])
async def test_a3_one_gate_on_every_destructive_path(locked: Locked, stage: Stage, switch: type) -> None:
    """A3: what is switched off is 405 for whoever might, refused to the others, and nothing changes."""
    await fill(locked.local, "mine/boat")
    upload = (await locked.wire.post(UPLOADS, headers=basic("alice"))).headers["location"]
    stage.show(create_app(locked.local, gate=Gate(switch(locked.local), locked.authority)))
    deletes = [path for method, path, _ in MINE if method == "DELETE" and "uploads" not in path]
    for path in [*deletes, *([upload] if switch is ReadOnly else [])]:
        statuses = [(await locked.wire.delete(path, headers=basic(who))).status_code for who in OTHERS]
        assert (await locked.wire.delete(path)).status_code == 401
        assert (await locked.wire.delete(path, headers=basic("alice"))).status_code == 405
        assert set(statuses) <= ({403, 404} if path == upload else {403})
    assert (await locked.local.resolve_manifest(RepositoryName("mine/boat"), Tag("latest"))).digest == IMAGE.digest


async def test_a4_create_only_by_query_and_by_path(locked: Locked) -> None:
    """A4: the tags of ``?tag=`` are held to the same rule as the one in the path."""
    await fill(locked.local, "mine/boat")
    second = image("another locked image")
    await push(locked.local, RepositoryName("mine/boat"), second)
    headers = basic("dora") | {"content-type": second.manifest.media_type}
    for path in ("latest", f"{second.digest}?tag=latest", f"{second.digest}?tag=fresh&tag=latest"):
        answer = await locked.wire.put(
            f"/v2/mine/boat/manifests/{path}", content=second.manifest.content, headers=headers
        )
        assert answer.status_code == 403, path
    assert (await locked.local.resolve_manifest(RepositoryName("mine/boat"), Tag("latest"))).digest == IMAGE.digest
    path = f"/v2/mine/boat/manifests/{second.digest}?tag=newer"
    assert (await locked.wire.put(path, content=second.manifest.content, headers=headers)).status_code == 201


# -- before the body ---------------------------------------------------------------------------------------------------


async def answer_without_body(locked: Locked, head: str) -> bytes:
    """What comes back for the head of a request whose body never comes; the connection's end where it closes."""
    url = urlsplit(str(locked.wire.base_url))
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(head.encode())
    async with asyncio.timeout(60):
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: ([0-9]+)", answer)[1])  # type: ignore[index]
        answer += await reader.readexactly(length)
        if b"connection: close" in answer:
            assert await reader.read() == b""
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("method", "path"), [(m, p) for m, p, _ in MINE if m in ("POST", "PUT", "PATCH")], ids=lambda value: value[-30:]
)
@pytest.mark.parametrize("who", ["", "eve"], ids=["nobody", "forbidden"])
async def test_a14_t14_refused_before_the_body(locked: Locked, method: str, path: str, who: str) -> None:
    """A14, T14: the head alone decides: the refusal comes though no byte of the body ever does (oras cannot rewind)."""
    login = f"Authorization: {basic(who)['authorization']}\r\n" if who else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{login}Content-Length: 1000000\r\n"
    status = b"403" if who else b"401"
    assert (await answer_without_body(locked, f"{head}\r\n")).startswith(b"HTTP/1.1 " + status)
    answer = await answer_without_body(locked, f"{head}Expect: 100-continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status), "no 100 before it"
    assert b"connection: close" in answer, "what follows on the connection could be the body or not"


# -- what is taken away, and what is written down ----------------------------------------------------------------------


async def test_t5_what_is_taken_away_is_gone_within_two_seconds() -> None:
    """T5: as `moorage token revoke` says: what the reader of the state and what the gate remember, together."""
    assert RECENT + _RECENTLY <= 2


async def test_t5_a_token_of_somebody_who_is_gone(locked: Locked) -> None:
    """T5: a token is for somebody who is there now, with the groups of now; nobody's is for nobody."""
    access = Scope.repository("mine/boat", "pull")
    for principal in (Principal("gone"), Principal("robot:none"), Principal("oidc:x:y", frozenset({"publisher:x"}))):
        token = locked.authority.issue(principal, access).token
        answer = await locked.wire.get("/v2/mine/boat/tags/list", headers={"authorization": f"Bearer {token}"})
        assert challenge_of(answer).parameters["error"] == "invalid_token", principal
    token = locked.authority.issue(ANONYMOUS, access).token
    answer = await locked.wire.get("/v2/mine/boat/tags/list", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 401


async def test_t4_a_token_is_good_for_v2_only(locked: Locked) -> None:
    """T4: where tokens are made one logs in with a password; whoever holds a token gets no other for it."""
    headers = await locked.bearer("alice", "repository:mine/boat:pull")
    assert (await locked.wire.get("/token?service=moorage", headers=headers)).status_code == 401
    form = {"grant_type": "refresh_token", "refresh_token": headers["authorization"].removeprefix("Bearer ")}
    assert (await locked.wire.post("/token", data=form)).status_code == 401


async def test_every_decision_is_audited(locked: Locked, stage: Stage, tmp_path: Path) -> None:
    """Who, what, by which rule: for what was done, and for what was refused; and never a secret (T8)."""
    await fill(locked.local, "mine/boat")
    audit = AuditLog.open(str(tmp_path / "audit"))
    gate = Gate(locked.local, locked.authority, audit=audit)
    stage.show(create_app(locked.local, gate=gate, tokens=TokenServer(locked.authority, audit=audit)))
    token = await locked.token("carol", "repository:mine/boat:pull")
    bearer = {"authorization": f"Bearer {token}"}
    assert (await locked.wire.get("/v2/mine/boat/manifests/latest", headers=bearer)).status_code == 200
    assert (await locked.wire.get(f"/v2/mine/boat/blobs/{LAYER}", headers=bearer)).status_code == 200
    assert (await locked.wire.delete("/v2/mine/boat/manifests/latest", headers=bearer)).status_code == 403
    assert (await locked.wire.get("/v2/", headers=basic("carol", "a wrong secret"))).status_code == 401
    audit.close()
    text = (tmp_path / "audit").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(one["event"], one["allowed"], one.get("who"), one.get("action"), one.get("rule")) for one in lines] == [
        ("login", True, "carol", None, None),
        ("token", True, "carol", "repository:mine/boat:pull", None),
        ("access", True, "carol", "pull", "readers"),
        ("access", True, "carol", "pull", "readers"),
        ("access", False, "carol", "delete", "default"),
        ("login", False, None, None, None),
    ]
    assert lines[-1]["claimed"] == "carol"
    assert not [secret for secret in (PASSWORD, token, "a wrong secret") if secret in text]


async def test_who_is_known_comes_in_without_waiting(locked: Locked, tmp_path: Path) -> None:
    """Only to read what they may, only after they were met, and never past the audit log: as if all were asked anew."""
    gate = Gate(locked.local, locked.authority)
    gate._recent.find(None, math.inf)  # from here on nobody is forgotten, however slow the machine is
    headers = [(name.encode(), value.encode()) for name, value in (await locked.bearer("carol", *SCOPES)).items()]
    request = {"headers": headers, "client": ("127.0.0.1", 1)}
    may, may_not = _endpoints("mine/boat"), _endpoints("theirs/boat")
    assert [gate.known(request, one) for one in (*may, *may_not)] == [None] * 10, "nobody was met"
    registry = await gate.admit(request, may[0])
    assert [gate.known(request, one) for one in may] == [registry] * 4 + [None]
    assert [gate.known(request, one) for one in may_not] == [None] * 5
    assert gate.known({**request, "headers": [(b"authorization", b"Bearer another")]}, may[0]) is None
    with pytest.raises(Unauthorized):
        gate.known({**request, "headers": headers * 2}, may[0])
    gate = Gate(locked.local, locked.authority, audit=AuditLog.open(str(tmp_path / "audit")))
    gate._recent.find(None, math.inf)
    await gate.admit(request, may[0])
    assert gate.known(request, may[0]) is None


def _endpoints(repository: str) -> list[Endpoint]:
    """The four that read content, and one that does not."""
    name = f"/v2/{repository}"
    paths = [
        (method, f"{name}/{what}") for what in ("manifests/latest", f"blobs/{LAYER}") for method in ("GET", "HEAD")
    ]
    return [parse(method, path) for method, path in (*paths, ("POST", f"{name}/blobs/uploads/"))]


async def test_a_refused_push_leaves_nothing(locked: Locked) -> None:
    """The body of a request that is refused is nowhere."""
    headers = basic("carol") | {"content-type": IMAGE.manifest.media_type}
    answer = await locked.wire.put("/v2/mine/new/manifests/x", content=IMAGE.manifest.content, headers=headers)
    assert answer.status_code == 403
    with pytest.raises(ManifestUnknown):
        await locked.local.resolve_manifest(RepositoryName("mine/new"), Tag("x"))


async def test_callers_are_remembered_for_a_second(locked: Locked) -> None:
    """T5: no longer; however many come, memory is bounded."""
    recent, caller = _Recent(), _Caller(locked.authority.rights_of_nobody(), locked.local)
    assert recent.find(b"Bearer secret", 100.0) is None
    recent.keep(b"Bearer secret", caller)
    assert recent.find(b"Bearer secret", 100.9) is caller
    assert recent.find(b"Bearer other", 100.9) is None
    assert recent.find(b"Bearer secret", 101.0) is None
    for number in range(5000):
        recent.keep(b"%d" % number, caller)
    assert len(recent._kept) <= 1024
