"""Is this the password of that account? Slow on purpose, so it is done aside, at most two at once, and remembered.

Law of time (T9): every refused login costs the same, 2^(highest cost in the file) rounds of bcrypt, whether the account
is unknown, disabled, or has a cheaper hash; so nobody learns by the clock who has an account.
Law of memory: only what was right is remembered, for 60 seconds, under a keyed hash, until the file changes.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import bcrypt
from moorage.auth.errors import BadCredentials, TooManyFailures
from moorage.auth.htpasswd import Account, Htpasswd
from moorage.auth.principal import printable

__all__ = ["LONGEST", "Passwords"]

LONGEST: Final = 72
"""Bytes of a password that bcrypt looks at; a longer one is refused, as any that begins so would fit (T13)."""

_AT_ONCE: Final = 2
_WAITING: Final = 64
"""Logins that may wait for their turn: what two threads do in a few seconds."""

_REMEMBERED: Final = 1024
_LIFE: Final = 60.0
_NICENESS: Final = 5
"""By how much the threads yield to the event loop and to other workers, which serve everybody else. Not by more:
now and then they hold the interpreter's lock, and whoever holds it must not wait for long."""


class Passwords:
    """Checks passwords. One per process, made after the fork.

    Args:
        clock: seconds that never go back.
        compare: bcrypt's ``checkpw``, of the password and a hash.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        compare: Callable[[bytes, bytes], bool] = bcrypt.checkpw,
    ) -> None:
        self._clock = clock
        self._compare = compare
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="moorage-login", initializer=_yield_to_others)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._file: Htpasswd | None = None

    async def check(self, file: Htpasswd, user: str, password: str) -> None:
        """Returns if ``password`` is that of the account ``user``, which is not disabled.

        Raises:
            BadCredentials: it is not.
            TooManyFailures: too many logins are waiting already.
        """
        secret = password.encode("utf-8", "surrogatepass")
        if len(secret) > LONGEST:
            raise BadCredentials(f"{printable(user)}: a password of more than {LONGEST} bytes")
        account = file.accounts.get(user)
        key = hmac.digest(self._key, user.encode("utf-8", "surrogatepass") + b"\0" + secret, hashlib.sha256)
        if self._knows(key, file):
            return
        if self._waiting >= _WAITING:
            raise TooManyFailures(retry_after=5)
        self._waiting += 1
        try:
            async with self._turns:
                if self._knows(key, file):  # somebody asked the same meanwhile
                    return
                await self._verify(account, file.top_cost, secret, user)
        finally:
            self._waiting -= 1
        self._remember(key, file)

    def close(self) -> None:
        """Lets the threads go; what they are at is finished."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _verify(self, account: Account | None, top_cost: int, secret: bytes, user: str) -> None:
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(self._threads, self._fits, account, top_cost, secret):
            state = "unknown account" if account is None else "disabled" if account.is_disabled else "wrong password"
            raise BadCredentials(f"{printable(user)}: {state}")

    def _fits(self, account: Account | None, top_cost: int, secret: bytes) -> bool:
        """The costly part, in a thread. Costs c, c, c+1 … top-1 add up to one of the top cost."""
        if account is None:
            self._compare(secret, _unfitting(top_cost))
            return False
        if self._compare(secret, account.hash) and not account.is_disabled:
            return True
        for cost in range(account.cost, top_cost):
            self._compare(secret, _unfitting(cost))
        return False

    def _knows(self, key: bytes, file: Htpasswd) -> bool:
        if file is not self._file:
            self._known.clear()
            self._file = file
        return self._clock() < self._known.get(key, 0.0)

    def _remember(self, key: bytes, file: Htpasswd) -> None:
        if file is self._file:  # else it changed while we computed
            self._known[key] = self._clock() + _LIFE
            self._known.move_to_end(key)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)


def _unfitting(cost: int) -> bytes:
    """A well-formed hash that takes the time of any other of its cost; what it is compared to does not count."""
    return b"$2b$%02d$" % cost + b"." * 53


def _yield_to_others() -> None:
    """Lets the event loops go first: a scheduler that lets a hash run on while they wait delays everybody else."""
    if sys.platform == "linux":  # where a thread has a niceness and processors of its own
        thread = threading.get_native_id()
        with suppress(PermissionError):  # a sandbox may deny it; a courtesy is no reason to refuse logins
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)
        with suppress(OSError):  # the same; or the processors were taken away meanwhile
            os.sched_setaffinity(thread, _for_hashes(os.sched_getaffinity(thread)))


def _for_hashes(processors: set[int]) -> set[int]:
    """Half of the processors, the same ones in every worker; one is always left where there are two."""
    return set(sorted(processors)[len(processors) // 2 :])
