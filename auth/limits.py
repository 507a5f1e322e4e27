"""How often a login may fail: guessing a password is slow, and slow for the guesser alone.

Law: nobody's account is ever locked; what is slowed is one address, or one user at one address. A few failures are
free, each further one doubles the wait, up to a minute; a minute without one forgives one, so that in the long run a
guesser has one guess a minute. Whether a user exists changes nothing. Memory is bounded: names are kept as short
hashes, and of more than ``MOST`` the one that has been quiet longest is forgotten. The limits are of one process.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

from moorage.auth.errors import BadCredentials, TooManyFailures

__all__ = ["ADDRESS", "MOST", "PAIR", "Allowance", "Limits"]

_T = TypeVar("_T")

MOST = 100_000
"""Addresses, and users at addresses, that are remembered at a time: about 20 MB each."""

LONGEST_WAIT = 60.0
"""Seconds that one failure costs at most."""

FORGIVEN_AFTER = 60.0
"""Seconds without a failure after which one counts no more."""

KNOWN_FOR = 3600.0
"""Seconds for which a login proves that the user belongs to the address."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """The failure that uses up the ``free`` ones costs 2 s, each further one twice the one before."""

    free: int


PAIR = Allowance(free=5)
"""A user at one address: somebody who tries to remember a password. At most ten tries in the first minute (F13)."""

ADDRESS = Allowance(free=20)
"""All users at one address: an office behind one address may mistype now and then."""


class Limits:
    """The failed logins of late. ``clock``: seconds, never set back."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pairs = _Failures(PAIR)
        self._addresses = _Failures(ADDRESS)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._lanes: dict[bytes, _Lane] = {}

    @asynccontextmanager
    async def attempt(self, user: str, address: str) -> AsyncIterator[None]:
        """Around one attempt to log in: ``BadCredentials`` out of the block is a failure, its plain end a success.

        Attempts from one address run one after another, so that one address cannot occupy whatever the check of a
        password needs; those of a user who has logged in from there lately do not wait for the others.

        Args:
            user: the name as it was sent.
            address: of the client; an IPv6 network of 64 bits is one address, as one customer has at least that.

        Raises:
            TooManyFailures: the password is not even to be looked at, for so many seconds.
        """
        address = _network(address)
        pair, origin = _hash(address, user), _hash(address)
        known = self._is_known(pair)
        self._check(pair, None if known else origin)
        async with self._lane(pair if known else origin):
            self._check(pair, None if known else origin)  # whoever was before us may have failed
            try:
                yield
            except BadCredentials:
                self._pairs.add(pair, self._clock())
                self._addresses.add(origin, self._clock())
                raise
            self._pairs.forget(pair)  # but not the address: its owner may have one account and want others
            _keep(self._known, pair, self._clock() + KNOWN_FOR)

    def _check(self, pair: bytes, origin: bytes | None) -> None:
        now = self._clock()
        wait = max(self._pairs.wait(pair, now), self._addresses.wait(origin, now) if origin else 0)
        if wait > 0:
            raise TooManyFailures(math.ceil(wait))

    def _is_known(self, pair: bytes) -> bool:
        return self._known.get(pair, -math.inf) > self._clock()

    @asynccontextmanager
    async def _lane(self, key: bytes) -> AsyncIterator[None]:
        """Where one goes at a time; it is there while somebody is in it."""
        lane = self._lanes.setdefault(key, _Lane())
        lane.users += 1
        try:
            async with lane.lock:
                yield
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[key]


class _Lane:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class _Failures:
    """Key → how many failures count, when the last was, and until when the next attempt has to wait."""

    def __init__(self, allowance: Allowance) -> None:
        self._free = allowance.free
        self._table: OrderedDict[bytes, tuple[int, float, float]] = OrderedDict()

    def wait(self, key: bytes, now: float) -> float:
        """Seconds until the next attempt; 0 or less: now."""
        found = self._table.get(key)
        return found[2] - now if found else 0

    def add(self, key: bytes, now: float) -> None:
        """Counts a failure."""
        count, last, _ = self._table.get(key, (0, now, now))
        count = max(0, count - int((now - last) / FORGIVEN_AFTER)) + 1
        over = count - self._free
        cost = min(LONGEST_WAIT, 2.0 ** min(over + 1, 10)) if over >= 0 else 0.0
        _keep(self._table, key, (count, now, now + cost))

    def forget(self, key: bytes) -> None:
        """Counts no failure before now."""
        self._table.pop(key, None)


def _keep(table: OrderedDict[bytes, _T], key: bytes, value: _T) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > MOST:
        table.popitem(last=False)


def _hash(*names: str) -> bytes:
    # An address holds no line feed, so two pairs never share a text.
    return blake2b("\n".join(names).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _network(address: str) -> str:
    """What shares a customer with ``address``; an address that is none (a local socket) stands for itself."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if mapped := parsed.ipv4_mapped:
        return str(mapped)
    return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
