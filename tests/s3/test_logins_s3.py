"""What logins share, in a bucket: robots, refresh tokens, and that of those who race one wins, at whichever replica."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from moorage.auth.errors import BadCredentials, StateConflict
from moorage.auth.principal import Principal
from moorage.auth.refresh import GRACE, RefreshTokens
from moorage.auth.robots import Robots
from moorage.auth.state import Stored
from moorage.registry.auth_state import StoredState
from moorage.storage_backends.s3 import Location, S3Store

from tests.accounts import World, hashed
from tests.s3.servers import S3Server
from tests.servers import MoorageProcess


@pytest.fixture
async def replicas(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[StoredState]]:
    """Two processes' views of one bucket."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    where = Location.parse(server.url(server.bucket(), "registry"))
    stores = [await S3Store.open(where) for _ in range(2)]
    yield [StoredState(store) for store in stores]
    for store in stores:
        await store.close()


@pytest.fixture
async def worlds(replicas: list[StoredState], tmp_path: Path) -> AsyncIterator[list[World]]:
    """The same accounts at both."""
    made = [World(tmp_path, state) for state in replicas]
    yield made
    for world in made:
        world.directory.close()


async def test_what_one_writes_the_other_reads(replicas: list[StoredState]) -> None:
    """At once, an empty value too, and with the version that it takes to change it; what is absent is None."""
    here, there = replicas
    assert await there.read("robots/ci") is None
    version = await here.write("robots/ci", b"", expect=None)
    assert await there.read("robots/ci") == Stored(b"", version)
    newer = await there.write("robots/ci", b"two", expect=version)
    assert await here.read("robots/ci") == Stored(b"two", newer)
    with pytest.raises(StateConflict):
        await here.write("robots/ci", b"three", expect=version)
    await here.write("robots/a", b"x", expect=None)
    await here.write("refresh/a", b"x", expect=None)
    assert [name async for name in there.names("robots/")] == ["robots/a", "robots/ci"]
    for state in replicas:
        await state.delete("robots/ci")
    assert [name async for name in here.names("robots/")] == ["robots/a"]


async def test_of_many_writers_one_wins(replicas: list[StoredState]) -> None:
    """For what must be absent and for what must be as it was read; everybody then reads the winner's."""
    for expect in (None, await replicas[0].write("b", b"first", expect=None)):
        name = "a" if expect is None else "b"
        writes = [state.write(name, b"%d" % number, expect=expect) for number, state in enumerate(replicas * 4)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        ((winner, version),) = [(number, one) for number, one in enumerate(outcomes) if isinstance(one, str)]
        assert sum(isinstance(one, StateConflict) for one in outcomes) == 7
        assert [await state.read(name) for state in replicas] == [Stored(b"%d" % winner, version)] * 2


async def test_robots_are_robots_everywhere(replicas: list[StoredState]) -> None:
    """Made at one, logged in at the other, made only once; revoked there, gone here."""
    here, there = map(Robots, replicas)
    made, secret = await here.create("ci", life=60)
    assert await there.login("ci", secret) == made
    with pytest.raises(StateConflict):
        await there.create("ci", life=60)
    assert [robot.name async for robot in there.list()] == ["ci"]
    assert await there.revoke("ci")
    with pytest.raises(BadCredentials):
        await here.login("ci", secret)


async def test_a_refresh_token_is_used_once_wherever(worlds: list[World]) -> None:
    """Redeemed at both at once, one rotation happens and both give the same next one; a copy is found out at the other
    replica, and ends the family for all."""
    here, there = (RefreshTokens(world.state, world.directory, now=world.now) for world in worlds)
    raw = await here.issue(Principal("alice"), "client")
    assert raw is not None
    answers = await asyncio.gather(*(one.redeem(raw) for one in (here, there) * 3))
    (following,) = {following for _, following in answers}
    _, last = await there.redeem(following)
    for world in worlds:
        world.seconds += GRACE + 1
    with pytest.raises(BadCredentials, match="somebody has a copy"):
        await here.redeem(following)
    with pytest.raises(BadCredentials, match="revoked"):
        await there.redeem(last)


def test_a_robot_made_on_the_command_line(server: S3Server, tmp_path: Path) -> None:
    """``moorage token create`` over the bucket lets it in where a server runs, ``revoke`` shuts it out."""
    (tmp_path / "accounts").write_text(f"alice:{hashed('unused')}\n")
    root = server.url(server.bucket(), "registry")
    words = ("--htpasswd", str(tmp_path / "accounts"), "--signing-key", str(tmp_path / "key"))
    with MoorageProcess(root, *words, environment=server.environment) as serve:
        secret = _moorage(server, "token", "create", "ci", "--root", root).strip().splitlines()[-1]
        assert _login(serve.url, secret) == 200
        _moorage(server, "token", "revoke", "ci", "--root", root)
        deadline = time.monotonic() + 60
        while _login(serve.url, secret) != 401:
            assert time.monotonic() < deadline, "the revoked robot is still let in"
            time.sleep(0.1)


def _login(url: str, secret: str) -> int:
    shown = base64.b64encode(f"robot+ci:{secret}".encode()).decode()
    return httpx.get(f"{url}/v2/", headers={"authorization": f"Basic {shown}"}, trust_env=False, timeout=60).status_code


def _moorage(server: S3Server, *words: str) -> str:
    environment = {"PATH": os.environ["PATH"], **server.environment}
    program = str(Path(sys.executable).with_name("moorage"))
    done = subprocess.run([program, *words], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout
