"""Refresh tokens: each is good once, and a copy is found out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from moorage.auth.errors import BadCredentials, StateConflict, StateUnavailable
from moorage.auth.principal import Principal
from moorage.auth.refresh import GRACE, IDLE, LIFE, PREFIX, RefreshTokens
from moorage.auth.secret import is_secret, new_secret
from moorage.auth.state import Stored
from moorage.registry.auth_state import StoredState
from moorage.storage_backends.memory import MemoryStore

from tests.accounts import World, hashed

_ALICE = Principal("alice", frozenset({"dev"}))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    made.directory.close()


@pytest.fixture
def tokens(world: World) -> RefreshTokens:
    return RefreshTokens(world.state, world.directory, now=world.now)


async def _first(tokens: RefreshTokens, principal: Principal = _ALICE) -> str:
    raw = await tokens.issue(principal, "client")
    assert raw is not None
    return raw


async def _is_refused(tokens: RefreshTokens, raw: str, why: str) -> None:
    with pytest.raises(BadCredentials, match=why):
        await tokens.redeem(raw)


async def test_each_use_gives_the_next(tokens: RefreshTokens) -> None:
    """Rotation: a chain of tokens, all different, of one holder."""
    raw, seen = await _first(tokens), set()
    for _ in range(5):
        seen.add(raw)
        principal, raw = await tokens.redeem(raw)
        assert principal == _ALICE
        assert is_secret(raw, PREFIX)
    assert len(seen) == 5


async def test_a_lost_answer_is_asked_for_again(tokens: RefreshTokens, world: World) -> None:
    """For 30 seconds the same token gives the same next one, however often; nothing is lost, nothing forks."""
    raw = await _first(tokens)
    _, following = await tokens.redeem(raw)
    world.seconds += GRACE
    for _ in range(3):
        assert (await tokens.redeem(raw))[1] == following
    assert (await tokens.redeem(following))[0] == _ALICE


async def test_a_copy_is_found_out(tokens: RefreshTokens, world: World) -> None:
    """Reuse revokes the family: the copy is refused, and so is what the owner got since."""
    raw = await _first(tokens)
    _, following = await tokens.redeem(raw)
    world.seconds += GRACE + 1
    await _is_refused(tokens, raw, "used before: somebody has a copy, its family is revoked")
    await _is_refused(tokens, following, "unknown, ended or revoked")


async def test_an_older_one_is_a_copy_at_once(tokens: RefreshTokens) -> None:
    """The grace is for the last one only."""
    raw = await _first(tokens)
    _, second = await tokens.redeem(raw)
    _, third = await tokens.redeem(second)
    await _is_refused(tokens, raw, "used before")
    await _is_refused(tokens, third, "unknown")


async def test_families_do_not_concern_each_other(tokens: RefreshTokens, world: World) -> None:
    """A second login of the same account stays when the first one's family is revoked."""
    raw, other = await _first(tokens), await _first(tokens)
    await tokens.redeem(raw)
    world.seconds += GRACE + 1
    await _is_refused(tokens, raw, "used before")
    await tokens.redeem(other)


async def test_two_at_once_get_the_same(tokens: RefreshTokens, world: World) -> None:
    """Whichever worker is first, one rotation happens, and both hold the token that is good next."""
    raw = await _first(tokens)
    elsewhere = RefreshTokens(world.state, world.directory, now=world.now)
    answers = await asyncio.gather(*(one.redeem(raw) for one in (tokens, elsewhere) * 3))
    (following,) = {following for _, following in answers}
    await tokens.redeem(following)


async def test_a_lost_race_is_looked_at_again(world: World) -> None:
    """Somebody redeemed it between our read and our write: then theirs is the answer, not an error."""
    raced: list[str] = []

    class Raced(StoredState):
        async def read(self, name: str) -> Stored | None:
            stored = await world.state.read(name)
            if not raced:
                raced.append((await RefreshTokens(world.state, world.directory, now=world.now).redeem(raw))[1])
            return stored

        async def write(self, name: str, value: bytes, *, expect: str | None) -> str:
            return await world.state.write(name, value, expect=expect)

    raw = await _first(RefreshTokens(world.state, world.directory, now=world.now))
    principal, following = await RefreshTokens(Raced(None), world.directory, now=world.now).redeem(raw)  # type: ignore[arg-type]
    assert (principal, [following]) == (_ALICE, raced)


async def test_a_race_that_never_ends_does(world: World, tokens: RefreshTokens) -> None:
    """After a few attempts the client is told to come back."""
    raw = await _first(tokens)

    class Busy(StoredState):
        read = world.state.read

        async def write(self, name: str, value: bytes, *, expect: str | None) -> str:
            raise StateConflict

    with pytest.raises(StateUnavailable, match="by many at once"):
        await RefreshTokens(Busy(None), world.directory, now=world.now).redeem(raw)  # type: ignore[arg-type]


async def test_nothing_that_is_kept_is_a_token(tokens: RefreshTokens, world: World) -> None:
    """Hashed at rest: neither names nor values hold a part of one, before and after it is used."""
    raw = await _first(tokens)
    _, following = await tokens.redeem(raw)
    (name,) = [name async for name in world.state.names("refresh/")]
    stored = await world.state.read(name)
    assert stored is not None
    for token in (raw, following):
        body = token.removeprefix(PREFIX)
        for start in range(0, 40, 8):
            assert body[start : start + 8].encode() not in stored.value + name.encode()


@pytest.mark.parametrize("change", ["disabled", "another password", "removed"])
async def test_a_family_ends_with_the_password(tokens: RefreshTokens, world: World, change: str) -> None:
    """T5: and does not come back with it."""
    raw, same = await _first(tokens), hashed("alice's")
    match change:
        case "disabled":
            world.accounts(alice="!" + same)
        case "another password":
            world.accounts(alice=hashed("other"))
        case _:
            world.accounts(bob=same)
    await _is_refused(tokens, raw, "refresh token of alice: its holder")
    world.accounts(alice=same)
    await _is_refused(tokens, raw, "unknown")


async def test_a_robots_family_ends_with_the_robot(tokens: RefreshTokens, world: World) -> None:
    """One of the same name that is made later is another robot."""
    await world.robots.create("ci", life=10_000)
    raw = await _first(tokens, Principal("robot:ci"))
    _, raw = await tokens.redeem(raw)
    await world.robots.revoke("ci")
    await world.robots.create("ci", life=10_000)
    world.seconds += 10
    await _is_refused(tokens, raw, "another password")


async def test_groups_are_those_of_today(tokens: RefreshTokens, world: World) -> None:
    """T5: a family remembers who, not what they may do."""
    raw = await _first(tokens)
    world.groups = {"ops": frozenset({"alice"})}
    assert (await tokens.redeem(raw))[0] == Principal("alice", frozenset({"ops"}))


@pytest.mark.parametrize("name", ["", "oidc:github:x", "issuer:old:x", "nobody"])
async def test_who_has_no_password_gets_none(tokens: RefreshTokens, name: str) -> None:
    """What a CI job gets is short-lived."""
    assert await tokens.issue(Principal(name, frozenset({"publisher:web"})), "client") is None


@pytest.mark.parametrize("raw", ["", "x", PREFIX, PREFIX + "a" * 46, "mrg_" + "a" * 46, "ä" * 51])
async def test_other_texts_are_none(tokens: RefreshTokens, raw: str) -> None:
    """Refused without a look into the store."""
    await _is_refused(tokens, raw, "not one of ours")


async def test_one_of_ours_that_is_not_kept(tokens: RefreshTokens) -> None:
    """Well formed, and unknown."""
    await _is_refused(tokens, new_secret(PREFIX), "unknown")


async def test_a_family_ends(tokens: RefreshTokens, world: World) -> None:
    """After 14 days without use, and after 90 days in all."""
    unused, used = await _first(tokens), await _first(tokens)
    for _ in range(LIFE // (IDLE - 1)):
        world.seconds += IDLE - 1
        _, used = await tokens.redeem(used)
    await _is_refused(tokens, unused, "has ended")
    world.seconds += LIFE % (IDLE - 1)
    await _is_refused(tokens, used, "has ended")


async def test_what_has_ended_is_swept(tokens: RefreshTokens, world: World) -> None:
    """Nothing piles up in the store; what is in use stays."""
    await _first(tokens)
    world.seconds += IDLE
    raw = await _first(tokens)
    assert await tokens.sweep() == 1
    await tokens.redeem(raw)
    assert await tokens.sweep() == 0
    await world.state.write("refresh/damaged", b"{", expect=None)
    assert await tokens.sweep() == 1
    await tokens.redeem(raw)


async def test_damage_is_no_token(tokens: RefreshTokens, world: World) -> None:
    """A record that cannot be read allows nothing, and is not taken for a wrong password."""
    raw = await _first(tokens)
    (name,) = [name async for name in world.state.names("refresh/")]
    stored = await world.state.read(name)
    assert stored is not None
    await world.state.write(name, stored.value[:-2], expect=stored.version)
    with pytest.raises(StateUnavailable, match="damaged"):
        await tokens.redeem(raw)


async def test_where_nothing_can_be_kept_there_is_none(world: World) -> None:
    """A store that can only be read: no refresh token is promised, and who has one is told that it cannot be redeemed
    now."""
    raw = await _first(RefreshTokens(world.state, world.directory, now=world.now))
    store = MemoryStore()
    store.capabilities = replace(store.capabilities, writable=False)

    class Kept(StoredState):
        read = world.state.read

    tokens = RefreshTokens(Kept(store), world.directory, now=world.now)
    assert await tokens.issue(_ALICE, "client") is None
    with pytest.raises(StateUnavailable, match="only be read"):
        await tokens.redeem(raw)
