"""A whole registry behind short-lived tokens: whatever the client does, it asks for what it needs and asks again."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from moorage.auth.challenge import Challenge
from moorage.auth.scope import Scope
from moorage.puller import AsyncClient
from moorage.puller.credentials import Credentials, FixedKeychain
from moorage.puller.hosts import HostConfig
from moorage.puller.messages import RetryPolicy
from moorage.puller.remote import RemoteRegistry
from moorage.puller.store import Store
from moorage.registry.oci import Unauthorized, routes
from moorage.registry.store import LocalRegistry
from moorage.registry.web.app import create_app
from moorage.storage_backends.memory import MemoryStore

from tests.servers import serving

_ALICE = Credentials("alice", "s3cret")
_FAST = RetryPolicy(attempts=1)


@dataclass
class Gate:
    """The server, and a token service, in one app. ``uses``: how many requests a token is good for."""

    uses: int
    url: str = ""
    app: Any = field(
        default_factory=lambda: create_app(LocalRegistry(MemoryStore(), allow_sparse=False, clock=time.time))
    )
    tokens: dict[str, tuple[Scope, int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope.get("headers", ())}
        shown, query = headers.get("authorization", ""), scope.get("query_string", b"").decode()
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/token":
            await _answer(send, 200 if shown == _ALICE.basic else 401, self._grant(query), {})
        elif self._admits(shown, needed := _needed(scope["method"], scope["raw_path"].decode(), query)):
            await self.app(scope, receive, send)
        else:
            error = {"error": "invalid_token"} if shown else {}
            told = {"realm": f"{self.url}/token", "service": "gate", "scope": str(needed), **error}
            await _answer(send, 401, {}, {"www-authenticate": str(Challenge("bearer", told))})

    def _grant(self, query: str) -> dict[str, object]:
        wanted = " ".join(parse_qs(query).get("scope", []))
        self.asked.append(wanted)
        name = f"canary-{len(self.asked)}"
        self.tokens[f"Bearer {name}"] = (Scope.parse(wanted), self.uses)
        return {"token": name, "expires_in": 300}

    def _admits(self, shown: str, needed: Scope) -> bool:
        granted, uses = self.tokens.get(shown, (Scope(), 0))
        if not uses or not granted.covers(needed):
            return False
        self.tokens[shown] = (granted, uses - 1)
        return True


def _needed(method: str, path: str, query: str) -> Scope:
    """What distribution demands for a request."""
    endpoint = routes.parse(method, path, query)
    if isinstance(endpoint, routes.Ping):
        return Scope()
    if isinstance(endpoint, routes.ListRepositories):
        return Scope.parse("registry:catalog:*")
    actions = {"GET": ["pull"], "HEAD": ["pull"], "DELETE": ["delete"]}.get(method, ["pull", "push"])
    if isinstance(endpoint, routes.CancelUpload):
        actions = ["pull", "push"]
    needed = Scope.repository(endpoint.repository, *actions)
    source = endpoint.source if isinstance(endpoint, routes.StartUpload) else None
    return needed | Scope.repository(source, "pull") if source else needed


async def _answer(send: Any, status: int, document: dict[str, object], headers: dict[str, str]) -> None:
    body = json.dumps(document).encode()
    raw = [(b"content-length", str(len(body)).encode()), *((n.encode(), v.encode()) for n, v in headers.items())]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def _gated(tmp_path: Path, uses: int) -> AsyncIterator[tuple[Gate, AsyncClient]]:
    gate = Gate(uses)
    async with serving(gate) as gate.url:
        store, hosts = Store(str(tmp_path / "store")), HostConfig.empty()
        async with AsyncClient(store, keychain=FixedKeychain(_ALICE), hosts=hosts, retry=_FAST) as client:
            yield gate, client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(bytes(range(256)) * 1000)
    return tmp_path / "folder"


@pytest.mark.parametrize("uses", [3, 1000])  # no fewer than there are requests at once, who share a token
async def test_everything_a_client_does(tmp_path: Path, folder: Path, uses: int) -> None:
    """Push, mount, pull, list, look, delete: with tokens that run out in the middle, or that last."""
    async with _gated(tmp_path, uses) as (gate, client):
        host = gate.url.removeprefix("http://")
        pushed = await client.push(folder, f"{host}/team/app:v1")
        copied = await client.copy(f"{host}/team/app:v1", f"{host}/team/copy:v1")
        assert {blob.action for blob in copied.blobs} == {"mounted"}
        pulled = await client.pull(f"{host}/team/copy:v1", unpack=tmp_path / "out")
        assert pulled.digest == pushed.descriptor.digest
        assert (tmp_path / "out" / "file").read_bytes() == (folder / "file").read_bytes()
        assert await client.tags(f"{host}/team/app") == ["v1"]
        assert await client.referrers(f"{host}/team/app:v1") == []
        await client.delete(f"{host}/team/app:v1")
        if uses > 3:
            assert len(gate.asked) == len(set(gate.asked))


async def test_the_catalog_has_a_scope_of_its_own(tmp_path: Path) -> None:
    """And a ping has none."""
    async with _gated(tmp_path, 1) as (gate, _):
        host, hosts = gate.url.removeprefix("http://"), HostConfig.empty()
        keys = FixedKeychain(_ALICE)
        async with RemoteRegistry.connect(host, keychain=keys, hosts=hosts, retry=_FAST) as remote:
            await remote.ping()
            assert [name async for name in remote.list_repositories()] == []
        assert gate.asked == ["", "registry:catalog:*"]


async def test_no_more_is_asked_for_than_is_needed(tmp_path: Path, folder: Path) -> None:
    """Who pulls asks to pull."""
    async with _gated(tmp_path, 1000) as (gate, client):
        host = gate.url.removeprefix("http://")
        await client.push(folder, f"{host}/team/app:v1")
        gate.tokens.clear()
        gate.asked.clear()
        async with AsyncClient(
            Store(str(tmp_path / "other")), keychain=FixedKeychain(_ALICE), hosts=HostConfig.empty(), retry=_FAST
        ) as other:
            await other.pull(f"{host}/team/app:v1")
        assert gate.asked == ["repository:team/app:pull"]


async def test_secrets_are_seen_nowhere(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in events, logs of any level, output, errors or their tracebacks (rules T8, N2)."""
    caplog.set_level(logging.DEBUG)
    shown: list[object] = []
    async with _gated(tmp_path, 3) as (gate, client):
        host = gate.url.removeprefix("http://")
        shown.append(await client.push(folder, f"{host}/team/app:v1", on_event=shown.append))
        shown.append(await client.pull(f"{host}/team/app:v1", on_event=shown.append))
        gate.uses = 0
        gate.tokens.clear()
        with pytest.raises(Unauthorized) as caught:
            await client.pull(f"{host}/team/none:v1")
        shown += [client, *traceback.format_exception(caught.value)]
        assert any(token.startswith("Bearer canary") for token in gate.tokens)
    everything = f"{shown!r} {caplog.text} {''.join(capfd.readouterr())}"
    for secret in ("s3cret", "canary", _ALICE.basic):
        assert secret not in everything


async def test_a_token_good_for_nothing(tmp_path: Path, folder: Path) -> None:
    """Ends in an error, not in a loop."""
    async with _gated(tmp_path, 0) as (gate, client):
        with pytest.raises(Unauthorized, match="not permitted to 'alice'"):
            await client.push(folder, f"{gate.url.removeprefix('http://')}/team/app:v1")
        assert len(gate.asked) < 10
