"""Robots: a secret that is shown once, an end that comes, a revocation that everybody sees."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.auth.errors import BadCredentials, StateConflict, StateUnavailable
from moorage.auth.robots import PREFIX, Robots, robot_name
from moorage.auth.secret import SECRET_PATTERN, is_secret, new_secret, sealed
from moorage.registry.auth_state import StoredState
from moorage.storage_backends.memory import MemoryStore


class _Now:
    seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now() -> _Now:
    return _Now()


@pytest.fixture
def state() -> StoredState:
    return StoredState(MemoryStore())


@pytest.fixture
def robots(state: StoredState, now: _Now) -> Robots:
    return Robots(state, now=now)


async def test_a_robot_logs_in_with_its_secret(robots: Robots) -> None:
    """And with no other, no part of it, and not under another name."""
    made, secret = await robots.create("ci", life=60)
    _, other = await robots.create("cd", life=60)
    assert await robots.login("ci", secret) == made
    assert str(made.principal) == "robot:ci"
    wrong = [("ci", other), ("ci", secret[:-1]), ("ci", ""), ("cd", secret), ("x", secret), ("../ci", secret)]
    for name, presented in wrong:
        with pytest.raises(BadCredentials):
            await robots.login(name, presented)


async def test_the_secret_is_not_kept(robots: Robots, state: StoredState) -> None:
    """T8: what is stored, and what is printed of a robot, does not hold it."""
    made, secret = await robots.create("ci", life=60)
    stored = await state.read("robots/ci")
    assert stored is not None
    assert secret.removeprefix(PREFIX).encode() not in stored.value
    assert made.credential not in repr(made)
    assert re.fullmatch(SECRET_PATTERN, secret)


async def test_every_robot_ends(robots: Robots, now: _Now) -> None:
    """To the second; then neither its secret nor what was got with it is good."""
    await robots.create("ci", life=60)
    _, secret = await robots.create("cd", life=61)
    now.seconds += 60
    assert await robots.current("ci") is None
    assert await robots.current("cd") is not None
    now.seconds += 1
    with pytest.raises(BadCredentials, match="robot:cd: expired"):
        await robots.login("cd", secret)
    assert [robot.name async for robot in robots.list()] == ["cd", "ci"]


async def test_a_revoked_robot_is_gone(robots: Robots) -> None:
    """T5: and a new one of its name does not know the old secret."""
    _, secret = await robots.create("ci", life=60)
    assert await robots.revoke("ci")
    assert not await robots.revoke("ci")
    assert await robots.current("ci") is None
    await robots.create("ci", life=60)
    with pytest.raises(BadCredentials):
        await robots.login("ci", secret)


async def test_a_robot_is_made_once(robots: Robots) -> None:
    """Nobody's secret is replaced unawares."""
    _, secret = await robots.create("ci", life=60)
    with pytest.raises(StateConflict):
        await robots.create("ci", life=60)
    await robots.login("ci", secret)


@pytest.mark.parametrize("name", ["", "CI", "a/b", "a:b", "..", ".a", "a.", "a..b", "ä", "a\n", "a" * 65, "a+b"])
def test_names_that_no_robot_can_have(name: str) -> None:
    """They would not be keys, or would look like something else."""
    with pytest.raises(ValueError, match="no name for a robot"):
        robot_name(name)


async def test_damage_is_no_login(robots: Robots, state: StoredState) -> None:
    """A record that cannot be read allows nothing, and says what to do."""
    _, secret = await robots.create("ci", life=60)
    stored = await state.read("robots/ci")
    assert stored is not None
    await state.write("robots/ci", stored.value[:-5], expect=stored.version)
    with pytest.raises(StateUnavailable, match="the robot ci is damaged: revoke it"):
        await robots.login("ci", secret)
    assert await robots.revoke("ci")


def test_secrets_differ() -> None:
    """And each is one by its checksum."""
    made = {new_secret(PREFIX) for _ in range(100)}
    assert len(made) == 100
    assert all(is_secret(secret, PREFIX) for secret in made)


@given(st.integers(0, 49), st.sampled_from("0aZ_ ä\udcff"))
def test_a_mistyped_secret_is_none(place: int, wrong: str) -> None:
    """Whatever single character is another one; a secret with another prefix is none either."""
    secret = sealed(PREFIX + "a1" * 20)
    changed = secret[:place] + wrong + secret[place + 1 :]
    assert is_secret(changed, PREFIX) is (changed == secret)
    assert not is_secret(secret, "mrgr_")
