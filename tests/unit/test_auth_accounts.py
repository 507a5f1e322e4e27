"""Accounts: the htpasswd file is read strictly, and a refused password tells nothing but that it was refused."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from functools import cache

import bcrypt
import pytest
from moorage.auth.errors import BadCredentials, ConfigurationError, TooManyFailures
from moorage.auth.htpasswd import Account, Htpasswd
from moorage.auth.passwords import Passwords, _for_hashes

_HASH = b"$2y$10$" + b"." * 53


@cache
def _hashed(password: bytes, cost: int = 10) -> bytes:
    return bcrypt.hashpw(password, bcrypt.gensalt(cost))


def _file(*accounts: Account) -> Htpasswd:
    return Htpasswd({one.name: one for one in accounts}, max(one.cost for one in accounts))


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class _Work:
    """Bcrypt itself, counting the rounds that it takes."""

    def __init__(self) -> None:
        self.rounds = 0
        self._lock = threading.Lock()

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        with self._lock:
            self.rounds += 1 << int(hashed[4:6])
        return bcrypt.checkpw(password, hashed)

    def taken(self) -> int:
        """The rounds since it was asked last."""
        rounds, self.rounds = self.rounds, 0
        return rounds


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def work() -> _Work:
    return _Work()


@pytest.fixture
def passwords(clock: _Clock, work: _Work) -> Iterator[Passwords]:
    made = Passwords(clock=clock, compare=work)
    yield made
    made.close()


@pytest.mark.parametrize("kind", [b"$2y$", b"$2b$", b"$2a$"])
def test_accounts_are_read(kind: bytes) -> None:
    """Comments, empty lines and line ends of Windows are no accounts; a ``!`` disables one."""
    hashed = kind + _HASH[4:]
    raw = b"# people\n\nalice:" + hashed + b"\r\nbob@example:!" + hashed + b"\n"
    read = Htpasswd.parse(raw, path="accounts")
    assert read.accounts == {
        "alice": Account("alice", hashed),
        "bob@example": Account("bob@example", hashed, is_disabled=True),
    }
    assert read.top_cost == 10


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("alice", "expected name:hash", id="no colon"),
        pytest.param(
            "alice:$apr1$x$y", "not hashed with bcrypt; set it anew with `moorage user passwd alice", id="MD5"
        ),
        pytest.param("alice:{SHA}x", "not hashed with bcrypt", id="SHA-1"),
        pytest.param("alice:secret", "not hashed with bcrypt", id="plain"),
        pytest.param("alice:", "not hashed with bcrypt", id="empty"),
        pytest.param("alice:$2x$10$" + "." * 53, "not hashed with bcrypt", id="broken bcrypt of 2011"),
        pytest.param("alice:$2y$10$" + "." * 21 + "/" + "." * 31, "not hashed", id="a wrong salt"),
        pytest.param("alice:$2y$10$" + "." * 53 + ":x", "not hashed", id="something behind"),
        pytest.param("alice:$2y$05$" + "." * 53, "bcrypt cost 5, and 10 to 16 are taken; set it", id="cheap"),
        pytest.param("alice:$2y$17$" + "." * 53, "bcrypt cost 17, and 10 to 16", id="too dear"),
        pytest.param("oidc:" + _HASH.decode(), "no account can be called oidc", id="reserved for CI"),
        pytest.param("anonymous:" + _HASH.decode(), "no account can be called anonymous", id="reserved for nobody"),
        pytest.param("robot+ci:" + _HASH.decode(), "'robot+ci' is no name for an account", id="a robot's name"),
        pytest.param(":" + _HASH.decode(), "'' is no name for an account", id="no name"),
        pytest.param("a b:" + _HASH.decode(), "'a b' is no name for an account", id="a space"),
        pytest.param(f"bob:{_HASH.decode()}\nbob:{_HASH.decode()}", "line 4: the account bob stands twice", id="twice"),
    ],
)
def test_a_line_that_is_wrong_refuses_the_file(line: str, message: str) -> None:
    """T13: bcrypt and nothing weaker; the message names file, line and account, and says how to mend it."""
    raw = f"# people\ncarol:{_HASH.decode()}\n{line}\n".encode()
    with pytest.raises(ConfigurationError) as caught:
        Htpasswd.parse(raw, path="accounts")
    assert message in str(caught.value)
    assert str(caught.value).startswith("accounts, line ")
    assert "\n" not in str(caught.value)


def test_other_files_are_no_htpasswd() -> None:
    """A file that is something else altogether is not taken apart."""
    with pytest.raises(ConfigurationError, match="more than ASCII"):
        Htpasswd.parse(b"\xff\xfe", path="accounts")


def test_hashes_are_not_shown() -> None:
    """T8: the repr of an account goes into logs and tracebacks."""
    assert "$2" not in repr(Account("alice", _HASH))


async def test_right_and_wrong(passwords: Passwords) -> None:
    """The password, whole and as it is written."""
    file = _file(Account("alice", _hashed("pässword".encode())))
    await passwords.check(file, "alice", "pässword")
    for wrong in ("pässwor", "pässword ", "Pässword", "", "p\N{COMBINING DIAERESIS}", "pässword\0", "\udcff"):
        with pytest.raises(BadCredentials):
            await passwords.check(file, "alice", wrong)


async def test_long_passwords_are_refused(passwords: Passwords, work: _Work) -> None:
    """T13: bcrypt looks at 72 bytes, so that with a longer one a part of the password would do."""
    file = _file(Account("alice", _hashed(b"x" * 72)))
    await passwords.check(file, "alice", "x" * 72)
    work.taken()
    for user in ("alice", "nobody"):
        with pytest.raises(BadCredentials, match="more than 72 bytes"):
            await passwords.check(file, user, "x" * 73)
    with pytest.raises(BadCredentials, match="more than 72 bytes"):
        await passwords.check(file, "alice", "ä" * 37)
    assert work.taken() == 0


async def test_every_refusal_takes_the_same_work(passwords: Passwords, work: _Work) -> None:
    """T9: in rounds of bcrypt, which is what the time goes into; whoever is unknown costs as much as whoever is not."""
    file = _file(
        Account("cheap", _hashed(b"right", 10)),
        Account("dear", _hashed(b"right", 12)),
        Account("away", _hashed(b"right", 11), is_disabled=True),
    )
    for user, password in (
        ("nobody", "right"),
        ("cheap", "wrong"),
        ("dear", "wrong"),
        ("away", "right"),
        ("away", "x"),
    ):
        with pytest.raises(BadCredentials):
            await passwords.check(file, user, password)
        assert work.taken() == 1 << 12, user


async def test_why_is_for_the_log_only(passwords: Passwords) -> None:
    """The message says which, on one line; the class, which is what a client learns, does not."""
    file = _file(Account("alice", _hashed(b"right"), is_disabled=True))
    for user, why in (("alice", "alice: disabled"), ("no\nbody", r"no\nbody: unknown account")):
        with pytest.raises(BadCredentials) as caught:
            await passwords.check(file, user, "right")
        assert str(caught.value) == why
        assert type(caught.value) is BadCredentials


async def test_what_was_right_is_remembered_for_a_minute(passwords: Passwords, work: _Work, clock: _Clock) -> None:
    """A client that sends its password with every request costs one hash a minute; a wrong one is never remembered."""
    file = _file(Account("alice", _hashed(b"right")))
    for seconds, is_computed in ((0, True), (59, False), (2, True), (0, False)):
        clock.now += seconds
        await passwords.check(file, "alice", "right")
        assert bool(work.taken()) is is_computed
    for _ in range(2):
        with pytest.raises(BadCredentials):
            await passwords.check(file, "alice", "wrong")
        assert work.taken()


async def test_what_is_remembered_goes_with_the_file(passwords: Passwords) -> None:
    """T5: whoever is disabled, removed or given another password is refused at once."""
    alice = Account("alice", _hashed(b"right"))
    await passwords.check(_file(alice), "alice", "right")
    disabled = Account("alice", alice.hash, is_disabled=True)
    for changed in (disabled, Account("alice", _hashed(b"other")), Account("bob", alice.hash)):
        with pytest.raises(BadCredentials):
            await passwords.check(_file(changed), "alice", "right")
    await passwords.check(_file(alice), "alice", "right")


async def test_name_and_password_are_not_mixed_up(passwords: Passwords) -> None:
    """The memory holds pairs: no other cut of the same letters is remembered."""
    file = _file(Account("ab", _hashed(b"c")), Account("a", _hashed(b"x")))
    await passwords.check(file, "ab", "c")
    with pytest.raises(BadCredentials):
        await passwords.check(file, "a", "bc")


async def test_the_queue_is_bounded(clock: _Clock) -> None:
    """Two at a time, 64 in all; the next one is told to come back, and nothing of the queue is lost."""
    may_go, at_once, most = threading.Event(), threading.Semaphore(2), []

    def slow(password: bytes, hashed: bytes) -> bool:
        most.append(at_once.acquire(blocking=False))
        assert may_go.wait(60)
        at_once.release()
        return password == b"right"

    passwords = Passwords(clock=clock, compare=slow)
    file = _file(Account("alice", _HASH))
    try:
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(_outcome(passwords, file, f"wrong {number}")) for number in range(64)]
            await asyncio.sleep(0)
            with pytest.raises(TooManyFailures) as caught:
                await passwords.check(file, "alice", "right")
            assert caught.value.retry_after > 0
            may_go.set()
        assert {task.result() for task in waiting} == {"alice: wrong password"}
        assert all(most)
        await passwords.check(file, "alice", "right")
    finally:
        may_go.set()
        passwords.close()


async def _outcome(passwords: Passwords, file: Htpasswd, password: str) -> str:
    try:
        await passwords.check(file, "alice", password)
    except BadCredentials as exc:
        return str(exc)
    return "right"


async def test_one_password_asked_many_times_at_once(passwords: Passwords, work: _Work) -> None:
    """A client that opens twenty connections with the same password costs two hashes at most, not twenty."""
    file = _file(Account("alice", _hashed(b"right")))
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(passwords.check(file, "alice", "right"))
    assert work.taken() <= 2 << 10


async def test_the_loop_goes_on_meanwhile(clock: _Clock) -> None:
    """The slow part runs aside: the loop serves others until it is done."""
    may_go = threading.Event()
    passwords = Passwords(clock=clock, compare=lambda *_: may_go.wait(60))
    try:
        async with asyncio.TaskGroup() as group:
            login = group.create_task(passwords.check(_file(Account("alice", _HASH)), "alice", "right"))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not login.done()
            may_go.set()
    finally:
        may_go.set()
        passwords.close()


@pytest.mark.parametrize(
    ("all_of_them", "hashing"),
    [({0}, {0}), ({0, 1}, {1}), ({3, 5, 9}, {5, 9}), ({0, 1, 2, 3}, {2, 3})],
    ids=["one processor", "two", "three of a container", "four"],
)
def test_hashing_leaves_processors_free(all_of_them: set[int], hashing: set[int]) -> None:
    """Half of them, so that guessers in any number never keep the event loops from running; with one there is none."""
    assert _for_hashes(all_of_them) == hashing


@pytest.mark.skipif("sys.platform != 'linux'", reason="only there has a thread processors of its own")
async def test_only_the_hashing_threads_yield(clock: _Clock) -> None:
    """Niceness and processors are theirs alone; the event loop keeps what it had."""
    before = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)
    seen: list[tuple[int, set[int]]] = []

    def look(*_: bytes) -> bool:
        thread = threading.get_native_id()
        seen.append((os.getpriority(os.PRIO_PROCESS, thread), os.sched_getaffinity(thread)))
        return True

    passwords = Passwords(clock=clock, compare=look)
    try:
        await passwords.check(_file(Account("alice", _HASH)), "alice", "right")
    finally:
        passwords.close()
    assert seen == [(min(before[0] + 5, 19), _for_hashes(before[1]))]
    assert (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)) == before
