"""Robots: accounts for programs, with a secret that we made, an end, and no password to remember.

Law: the secret is shown once and kept only as its SHA-256, which is enough for 238 random bits; every robot expires;
a revoked one is gone for every worker and replica within two seconds (``state.RECENT``). Its secret is recognisable
(``mrg_…`` with a checksum), so that scanners find it where it does not belong.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec
from moorage.auth.errors import BadCredentials, StateUnavailable
from moorage.auth.principal import ROBOT, Principal, printable
from moorage.auth.secret import is_secret, new_secret
from moorage.auth.state import State

__all__ = ["PREFIX", "ROBOT_USER", "Robot", "Robots", "robot_name"]

PREFIX: Final = "mrg_"
"""What every secret of a robot begins with."""

ROBOT_USER: Final = "robot+"
"""How a robot's user name begins: ``robot+ci`` logs in as ``robot:ci``, since a Basic user name cannot hold a colon."""

_KEPT: Final = "robots/"
_NAME = re.compile(r"(?!.*\.\.)[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_NOBODY: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Robot:
    """One robot. ``created``, ``expires``: Unix seconds; ``credential``: the SHA-256 of its secret, in hex."""

    name: str
    created: int
    expires: int
    credential: str = field(repr=False)

    @property
    def principal(self) -> Principal:
        """Who it acts as, before any group."""
        return Principal(f"{ROBOT}{self.name}")


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    created: int
    expires: int


class Robots:
    """The robots that the state knows. ``now``: Unix time."""

    def __init__(self, state: State, *, now: Callable[[], float] = time.time) -> None:
        self._state = state
        self._now = now

    async def create(self, name: str, *, life: int) -> tuple[Robot, str]:
        """Makes a robot that expires in ``life`` seconds; returns it and its secret, which nobody can read again.

        Raises:
            ValueError: no robot can be called so.
            StateConflict: there is one of this name already.
        """
        secret, created = new_secret(PREFIX), int(self._now())
        record = _Record(_hash(secret), created, created + life)
        await self._state.write(f"{_KEPT}{robot_name(name)}", msgspec.json.encode(record), expect=None)
        return Robot(name, record.created, record.expires, record.sha256), secret

    async def revoke(self, name: str) -> bool:
        """Takes the robot away, also one whose record is damaged; returns whether there was one.

        Raises:
            ValueError: no robot can be called so.
        """
        kept = f"{_KEPT}{robot_name(name)}"
        was_there = await self._state.read(kept) is not None
        await self._state.delete(kept)
        return was_there

    async def list(self) -> AsyncIterator[Robot]:
        """Every robot, expired ones too, by name."""
        async for kept in self._state.names(_KEPT):
            if robot := await self.find(kept.removeprefix(_KEPT)):
                yield robot

    async def find(self, name: str) -> Robot | None:
        """The robot of this name, expired or not.

        Raises:
            StateUnavailable: what is kept of it cannot be read.
        """
        if _NAME.fullmatch(name) is None:
            return None
        stored = await self._state.read(f"{_KEPT}{name}")
        if stored is None:
            return None
        try:
            record = msgspec.json.decode(stored.value, type=_Record)
        except msgspec.MsgspecError:
            raise StateUnavailable(f"what is kept of the robot {name} is damaged: revoke it and make it anew") from None
        return Robot(name, record.created, record.expires, record.sha256)

    async def login(self, name: str, secret: str) -> Robot:
        """The robot, if this is its secret and it has not expired.

        Raises:
            BadCredentials: otherwise. The comparison takes the same time in every case (T9).
        """
        robot = await self.find(name) if is_secret(secret, PREFIX) else None
        fits = hmac.compare_digest(_hash(secret), robot.credential if robot else _NOBODY)
        if robot is None or not fits:
            raise BadCredentials(f"{ROBOT}{printable(name)}: unknown, or not its secret")
        if self.has_expired(robot):
            raise BadCredentials(f"{ROBOT}{name}: expired")
        return robot

    async def current(self, name: str) -> Robot | None:
        """The robot, unless it is revoked or expired."""
        robot = await self.find(name)
        return None if robot is None or self.has_expired(robot) else robot

    def has_expired(self, robot: Robot) -> bool:
        """Whether it may not log in any more."""
        return robot.expires <= self._now()


def robot_name(raw: str) -> str:
    """``raw``, if a robot may be called so.

    Raises:
        ValueError: it may not; says why.
    """
    if _NAME.fullmatch(raw) is None:
        raise ValueError(
            f"{printable(raw)!r} is no name for a robot: lower-case letters, digits and . _ - within are, 64 at most"
        )
    return raw


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
