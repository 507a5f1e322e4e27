"""The directory knows who somebody is now; what they were is no argument (rule T5)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from moorage.auth.configuration import AuthConfig
from moorage.auth.directory import Directory
from moorage.auth.errors import BadCredentials, ConfigurationError
from moorage.auth.policy import Policy
from moorage.auth.principal import ANONYMOUS, Principal
from moorage.auth.robots import Robots
from moorage.auth.state import RECENT
from moorage.registry.auth_state import StoredState
from moorage.storage_backends.memory import MemoryStore

from tests.accounts import World, hashed


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    made.directory.close()


async def test_login(world: World) -> None:
    """Accounts by password, robots by secret; each with the groups of the file."""
    _, secret = await world.robots.create("ci", life=60)
    assert await world.directory.login("alice", "alice's") == Principal("alice", frozenset({"dev"}))
    assert await world.directory.login("bob", "bob's") == Principal("bob")
    assert await world.directory.login("robot+ci", secret) == Principal("robot:ci", frozenset({"dev"}))


@pytest.mark.parametrize(
    "user", ["alice", "nobody", "", "robot+ci", "robot:ci", "robot+", "robot+../alice", "oidc", "ALICE"]
)
async def test_other_logins_are_refused(world: World, user: str) -> None:
    """T6: whatever they call themselves, and with the same error."""
    await world.robots.create("ci", life=60)
    with pytest.raises(BadCredentials):
        await world.directory.login(user, "bob's")


async def test_a_change_of_the_accounts_is_in_force_a_second_later(world: World) -> None:
    """Disabled, removed, or with another password: nobody gets in with what held before."""
    await world.directory.login("alice", "alice's")
    for line in ("!" + hashed("alice's"), hashed("other")):
        world.accounts(alice=line)
        with pytest.raises(BadCredentials):
            await world.directory.login("alice", "alice's")
    world.accounts(bob=hashed("bob's"))
    with pytest.raises(BadCredentials):
        await world.directory.login("alice", "alice's")
    assert await world.directory.current(Principal("alice")) is None


async def test_a_broken_file_keeps_what_held(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A mistake of the operator's locks nobody out and lets nobody in."""
    world.accounts(alice="plain")
    await world.directory.login("alice", "alice's")
    assert "the password of alice is not hashed with bcrypt" in caplog.text


async def test_current_replaces_groups(world: World) -> None:
    """T5: what a token says about groups is never added to what the file says."""
    claimed = Principal("alice", frozenset({"admins", "publisher:web"}))
    assert await world.directory.current(claimed) == Principal("alice", frozenset({"dev"}))
    world.groups = {}
    assert await world.directory.current(claimed) == Principal("alice")


async def test_current_of_those_who_are_gone(world: World) -> None:
    """T5: disabled, removed, revoked and expired principals are nobody, whatever token they hold."""
    world.accounts(alice="!" + hashed("alice's"))
    for name in ("alice", "bob", "robot:ci", "robot:", "issuer:gone:x", "oidc:github:x"):
        assert await world.directory.current(Principal(name)) is None, name
    assert await world.directory.current(ANONYMOUS) == ANONYMOUS


async def test_a_revoked_robot_is_refused_within_moments(world: World) -> None:
    """T5: two seconds at most, also where another process revoked it."""
    _, secret = await world.robots.create("ci", life=1000)
    assert await world.directory.login("robot+ci", secret)
    await world.robots.revoke("ci")
    world.seconds += RECENT
    assert await world.directory.current(Principal("robot:ci")) is None
    with pytest.raises(BadCredentials):
        await world.directory.login("robot+ci", secret)


async def test_a_ci_job_keeps_the_publishers_that_there_are(world: World) -> None:
    """Those that matched it when it came, as far as the file still has them, of its own issuer only."""
    job = Principal("oidc:github:repo:org/web", frozenset({"publisher:web", "publisher:api", "dev"}))
    assert await world.directory.current(job) == Principal(job.name, frozenset({"publisher:web", "publisher:api"}))
    world.publishers = ("api",)
    assert await world.directory.current(job) == Principal(job.name, frozenset({"publisher:api"}))
    assert await world.directory.current(Principal("oidc:gitlab:x", job.groups)) is None
    world.publishers = ()
    assert await world.directory.current(job) is None


async def test_holders_of_others_tokens(world: World) -> None:
    """As long as their issuer is trusted; they are in no group, whatever they say."""
    theirs = Principal("issuer:old:alice", frozenset({"dev"}))
    assert await world.directory.current(theirs) == Principal(theirs.name)
    world.token_issuers = ()
    assert await world.directory.current(theirs) is None


async def test_a_standing_changes_with_the_secret(world: World) -> None:
    """What is bound to it ends with the password."""
    before = await world.directory.standing(Principal("alice"))
    world.accounts(alice=hashed("other"))
    after = await world.directory.standing(Principal("alice"))
    assert before is not None
    assert after is not None
    assert before.principal == after.principal
    assert before.credential != after.credential


async def test_a_start_with_a_broken_file_is_refused(tmp_path: Path) -> None:
    """Rather than at the first login."""
    (tmp_path / "accounts").write_text("alice:plain\n")
    config = AuthConfig.open_to_accounts(str(tmp_path / "accounts"))
    with pytest.raises(ConfigurationError, match="line 1"):
        Directory(lambda: config, StoredState(MemoryStore()))


async def test_without_accounts_nobody_logs_in() -> None:
    """Robots do, if there are any."""
    state = StoredState(MemoryStore())
    directory = Directory(lambda: AuthConfig(Policy()), state)
    _, secret = await Robots(state).create("ci", life=60)
    with pytest.raises(BadCredentials, match="no account at all"):
        await directory.login("alice", "alice's")
    assert await directory.login("robot+ci", secret) == Principal("robot:ci")
    directory.close()
