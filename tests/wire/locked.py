"""A registry behind a login, on the stage: accounts, policies and tokens as a worker has them.

alice may do everything in mine/**, bob in theirs/**; carol may only pull from mine/**, dora only create there; eve is
known and may do nothing; public/** is open to everybody. The admin may do everything everywhere.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import httpx
import pytest
import pytest_asyncio
from moorage.registry.auth_state import StoredState
from moorage.registry.oci import Registry
from moorage.registry.outbound import Outbound
from moorage.registry.settings import load_settings
from moorage.registry.web.app import create_app
from moorage.registry.web.authority import Authority, Foundation, lay_foundation
from moorage.registry.web.gate import Gate
from moorage.registry.web.login import TokenServer
from moorage.storage_backends.memory import MemoryStore

from tests.stage import Stage

__all__ = ["PASSWORD", "PEOPLE", "Locked", "authority", "basic", "files", "foundation", "locked"]

PASSWORD = "correct horse"
_HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
PEOPLE = ("admin", "alice", "bob", "carol", "dora", "eve")
POLICY = """\
htpasswd: accounts
rules:
  - {name: admin, who: [admin], repositories: ["**"], actions: [pull, create, update, delete, catalog]}
  - {name: mine, who: [alice], repositories: ["mine/**"], actions: [pull, create, update, delete]}
  - {name: theirs, who: [bob], repositories: ["theirs/**"], actions: [pull, create, update, delete]}
  - {name: readers, who: [carol], repositories: ["mine/**"], actions: [pull]}
  - {name: creators, who: [dora], repositories: ["mine/**"], actions: [pull, create]}
  - {name: lists, who: [alice, carol], actions: [catalog]}
anonymous:
  - {repositories: ["public/**"], actions: [pull]}
"""


def basic(user: str, password: str = PASSWORD) -> dict[str, str]:
    """The header of a Basic login."""
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@dataclass(slots=True)
class Locked:
    """The server, and ways to come in."""

    wire: httpx.AsyncClient
    local: Registry
    authority: Authority
    directory: Path

    async def token(self, user: str, *scopes: str) -> str:
        """A token of ``user`` for the scopes; nobody's for an empty name."""
        answer = await self.wire.get(
            "/token", params={"service": "moorage", "scope": scopes}, headers=basic(user) if user else {}
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    async def bearer(self, user: str, *scopes: str) -> dict[str, str]:
        """The header of a Bearer login."""
        return {"authorization": f"Bearer {await self.token(user, *scopes)}"}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's files."""
    directory = tmp_path_factory.mktemp("locked")
    (directory / "accounts").write_text("".join(f"{name}:{_HASH}\n" for name in PEOPLE))
    (directory / "accounts").chmod(0o600)
    (directory / "policy.yaml").write_text(POLICY)
    return directory


@pytest.fixture(scope="session")
def foundation(files: Path) -> Foundation:
    """What the parent of the workers makes."""
    names = {"root": "root", "auth": "policy.yaml", "signing_key": "signing.key"}
    flags = {name: str(files / file) for name, file in names.items()}
    return lay_foundation(load_settings(flags, {}).settings)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def authority(foundation: Foundation) -> AsyncIterator[Authority]:
    """One for all tests, as a check of a password takes its time and is remembered."""
    store = MemoryStore()
    authority = Authority(foundation, StoredState(store), Outbound())
    yield authority
    authority.close()
    await store.close()


@pytest_asyncio.fixture(loop_scope="session")
async def locked(wire: httpx.AsyncClient, local: Registry, stage: Stage, authority: Authority, files: Path) -> Locked:
    """The server, locked."""
    stage.show(create_app(local, gate=Gate(local, authority), tokens=TokenServer(authority)))
    return Locked(wire, local, authority, files)
