"""Limits of failed logins: guessing is slow, for the guesser alone."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.auth import limits as module
from moorage.auth.errors import BadCredentials, TooManyFailures
from moorage.auth.limits import ADDRESS, PAIR, Limits

HERE, THERE = "192.0.2.1", "192.0.2.2"


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def limits(clock: _Clock) -> Limits:
    return Limits(clock=clock)


async def _attempt(limits: Limits, user: str = "alice", address: str = HERE, *, good: bool = False) -> int | None:
    """None: the password was looked at; else the seconds to wait."""
    try:
        with suppress(BadCredentials):
            async with limits.attempt(user, address):
                _believe(good)
    except TooManyFailures as exc:
        return exc.retry_after
    return None


def _believe(good: bool) -> None:
    if not good:
        raise BadCredentials("wrong")


async def _use_up(limits: Limits, user: str = "alice", address: str = HERE) -> int:
    for _ in range(PAIR.free):
        assert await _attempt(limits, user, address) is None
    wait = await _attempt(limits, user, address)
    assert wait is not None
    return wait


async def test_each_further_failure_doubles_the_wait(limits: Limits, clock: _Clock) -> None:
    """2, 4, 8 ... seconds, at most 60; the good password is not looked at either while it lasts."""
    wait, waits = await _use_up(limits), []
    for _ in range(8):
        waits.append(wait)
        assert await _attempt(limits, good=True) == wait
        clock.now += wait
        assert await _attempt(limits) is None
        again = await _attempt(limits)
        assert again is not None
        wait = again
    assert waits[:5] == [2, 4, 8, 16, 32]
    assert max(waits) == 60


async def test_f13_ten_guesses_in_the_first_minute_then_one_a_minute(limits: Limits, clock: _Clock) -> None:
    """Whoever guesses as fast as they may: at most 10 in the first minute, at most 66 in an hour."""
    looked_at: list[float] = []
    while clock.now < 4600:
        wait = await _attempt(limits)
        if wait is None:
            looked_at.append(clock.now - 1000)
        else:
            clock.now += wait
    assert sum(at < 60 for at in looked_at) <= 10
    assert len(looked_at) <= 70


async def test_others_are_not_slowed(limits: Limits) -> None:
    """Nobody's account is locked: the same user elsewhere and another user here may go on."""
    await _use_up(limits)
    assert await _attempt(limits, address=THERE) is None
    assert await _attempt(limits, "bob") is None


async def test_many_users_from_one_address_are_one_guesser(limits: Limits) -> None:
    """Spraying one password over many names is slowed too."""
    waits = [await _attempt(limits, f"user{number}") for number in range(ADDRESS.free + 1)]
    assert waits == [*[None] * ADDRESS.free, 2]
    assert await _attempt(limits, "user99", THERE) is None


async def test_who_logged_in_lately_is_not_stopped_by_neighbours(limits: Limits, clock: _Clock) -> None:
    """Behind one address an attacker cannot lock out those who work there; their own failures count still."""
    assert await _attempt(limits, "carol", good=True) is None
    for number in range(ADDRESS.free):
        await _attempt(limits, f"user{number}")
    assert await _attempt(limits, "dave", good=True) == 2
    assert await _attempt(limits, "carol", good=True) is None
    await _use_up(limits, "carol")
    clock.now += module.KNOWN_FOR + 1
    for number in range(ADDRESS.free):
        await _attempt(limits, f"user{number}")
    assert await _attempt(limits, "carol", good=True) is not None, "lately is over"


async def test_success_forgives_the_user_not_the_address(limits: Limits) -> None:
    """An attacker with one account must not buy new guesses at others by logging in to it."""
    for number in range(ADDRESS.free - 1):
        assert await _attempt(limits, f"user{number}") is None
        assert await _attempt(limits, "mallory", good=True) is None
    assert await _attempt(limits, "last") is None
    assert await _attempt(limits, "one-more") == 2


async def test_success_forgives_the_user(limits: Limits) -> None:
    """After the right password one may mistype as often as before."""
    for _ in range(PAIR.free - 1):
        await _attempt(limits)
    await _attempt(limits, good=True)
    assert await _use_up(limits) == 2


async def test_what_is_no_answer_is_no_failure(limits: Limits) -> None:
    """A client that leaves, or a store that fails, says nothing about the password."""
    for _ in range(PAIR.free + 1):
        with pytest.raises(OSError, match="gone"):
            async with limits.attempt("alice", HERE):
                raise OSError("gone")
    assert await _attempt(limits, good=True) is None


async def test_attempts_at_once_get_no_more_guesses(limits: Limits) -> None:
    """1,000 at once from one address: one at a time, and after the allowance none is looked at."""
    running, most, looked_at = 0, 0, 0

    async def one(number: int) -> None:
        nonlocal running, most, looked_at
        async with limits.attempt(f"user{number}", HERE):
            running += 1
            most, looked_at = max(most, running), looked_at + 1
            await asyncio.sleep(0)
            running -= 1
            raise BadCredentials("wrong")

    outcomes = await asyncio.gather(*(one(number) for number in range(1000)), return_exceptions=True)
    assert (most, looked_at) == (1, ADDRESS.free)
    assert sum(isinstance(outcome, TooManyFailures) for outcome in outcomes) == 1000 - ADDRESS.free
    assert limits._lanes == {}


async def test_an_attempt_given_up_lets_the_next_one_in(limits: Limits) -> None:
    """Also when it was waiting for its turn."""
    inside, leave = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        async with limits.attempt("alice", HERE):
            inside.set()
            await leave.wait()

    first = asyncio.create_task(slow())
    await inside.wait()
    waiting = asyncio.create_task(slow())
    await asyncio.sleep(0)
    waiting.cancel()
    first.cancel()
    await asyncio.wait([first, waiting])
    assert await _attempt(limits, good=True) is None
    assert limits._lanes == {}


async def test_memory_is_bounded(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that has been quiet longest is forgotten; a name of a megabyte takes no more than a short one."""
    monkeypatch.setattr(module, "MOST", 10)
    for number in range(30):
        await _attempt(limits, "x" * 1_000_000, f"192.0.2.{number}")
        await _attempt(limits, f"user{number}", THERE, good=True)
    for table in (limits._pairs._table, limits._addresses._table, limits._known):
        assert len(table) == 10
        assert {len(key) for key in table} == {16}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("2001:db8::1", "2001:db8::ffff", True, id="one customer's network"),
        pytest.param("2001:db8::1", "2001:db8:0:1::1", False, id="two networks"),
        pytest.param("::ffff:192.0.2.1", "192.0.2.1", True, id="IPv4 written as IPv6"),
        pytest.param("::ffff:192.0.2.1", "::ffff:192.0.2.9", False, id="two such"),
        pytest.param("fe80::1%eth0", "fe80::2", True, id="with a zone"),
        pytest.param("192.0.2.1", "192.0.2.9", False, id="two IPv4"),
        pytest.param("", "192.0.2.1", False, id="a local socket"),
    ],
)
async def test_what_one_address_is(limits: Limits, one: str, other: str, same: bool) -> None:
    """IPv6 is counted by networks of 64 bits: one customer has that many addresses."""
    await _use_up(limits, address=one)
    assert (await _attempt(limits, address=other) is not None) is same


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 90)), max_size=60))
async def test_waits_are_bounded_and_end(steps: list[tuple[bool, float]]) -> None:
    """Whatever happened before, after the wait that was named the password is looked at, and it is at most 60 s."""
    clock = _Clock()
    limits = Limits(clock=clock)
    for good, pause in steps:
        clock.now += pause
        wait = await _attempt(limits, good=good)
        if wait is not None:
            assert 1 <= wait <= 60
            clock.now += wait
            assert await _attempt(limits, good=good) is None
