"""Refresh tokens: what a client keeps so that it need not keep the password.

Law: opaque, kept as a hash, good for one use. Each use gives the next one; whoever comes with an older one than that
holds a copy, so the whole family is revoked and both, thief and owner, must log in again. A family ends with the
password or secret it began with, when its account is disabled, after 14 days without use, and after 90 days.

An answer may be lost, and two requests may run side by side: for 30 seconds the one that was used last is taken again,
and gives the *same* next one. That is possible without keeping it, since the next is derived from the one presented and
a nonce that is kept: neither alone tells it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Final

import msgspec
from moorage.auth.directory import Directory
from moorage.auth.errors import BadCredentials, StateConflict, StateReadOnly, StateUnavailable
from moorage.auth.principal import Principal, printable
from moorage.auth.secret import RANDOM, is_secret, new_secret, random_text, sealed
from moorage.auth.state import State, Stored

__all__ = ["GRACE", "IDLE", "LIFE", "PREFIX", "RefreshTokens"]

PREFIX: Final = "mrgr_"
GRACE: Final = 30
"""Seconds for which the token that was used last is taken again."""

IDLE: Final = 14 * 86_400
LIFE: Final = 90 * 86_400
"""Seconds without use, and in all, after which a family ends."""

_KEPT: Final = "refresh/"
_FAMILY: Final = len(PREFIX) + 16  # so much of a token says which family it is of; the other 24 characters are secret
_CLIENT: Final = 128
_ATTEMPTS: Final = 4


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One family. Times: Unix seconds; hashes: SHA-256 in hex."""

    principal: str
    client: str
    credential: str
    current: str
    previous: str
    nonce: str
    issued: int
    used: int

    @property
    def ends(self) -> int:
        return min(self.issued + LIFE, self.used + IDLE)


class RefreshTokens:
    """Issues and redeems them. ``state`` is read as it is now, not as it was; ``now``: Unix time."""

    def __init__(self, state: State, directory: Directory, *, now: Callable[[], float] = time.time) -> None:
        self._state = state
        self._directory = directory
        self._now = now

    async def issue(self, principal: Principal, client: str) -> str | None:
        """The first token of a family; None for those who have no password or secret here (CI jobs, anonymous), and
        where nothing can be kept: a client that gets none goes on with the password.

        Args:
            client: what the client calls itself; kept for whoever looks into the state.

        Raises:
            StateUnavailable: it cannot be kept now.
        """
        standing = await self._directory.standing(principal)
        if standing is None or not standing.credential:
            return None
        raw, now = new_secret(PREFIX), int(self._now())
        record = _Record(
            principal=principal.name,
            client=printable(client)[:_CLIENT],
            credential=_hash(standing.credential),
            current=_hash(raw),
            previous="",
            nonce="",
            issued=now,
            used=now,
        )
        try:
            await self._state.write(_place(raw), msgspec.json.encode(record), expect=None)
        except StateReadOnly:
            return None
        return raw

    async def redeem(self, raw: str) -> tuple[Principal, str]:
        """Who holds the token, as they are now, and the token to use next.

        Raises:
            BadCredentials: it is none of ours, has ended, or has been used before: then its family is revoked.
            StateUnavailable: it cannot be looked up.
        """
        if not is_secret(raw, PREFIX):
            raise BadCredentials("refresh token: not one of ours")
        for _ in range(_ATTEMPTS):
            stored = await self._state.read(_place(raw))
            if stored is None:
                raise BadCredentials("refresh token: unknown, ended or revoked")
            record = _decoded(stored)
            principal = await self._holder(raw, record)
            try:
                return principal, await self._next(raw, record, stored.version)
            except StateConflict:  # somebody redeems it at the same time: look what they made of it
                continue
        raise StateUnavailable("the refresh token is redeemed by many at once")

    async def sweep(self) -> int:
        """Removes families that have ended, and what cannot be read, which nobody can redeem; returns how many."""
        removed = 0
        async for name in self._state.names(_KEPT):
            stored = await self._state.read(name)
            if stored and self._has_ended(stored):
                await self._state.delete(name)
                removed += 1
        return removed

    def _has_ended(self, stored: Stored) -> bool:
        try:
            return _decoded(stored).ends <= self._now()
        except StateUnavailable:
            return True

    async def _holder(self, raw: str, record: _Record) -> Principal:
        """Whose the family is; ends it where they are not who they were."""
        standing = await self._directory.standing(Principal(record.principal))
        if record.ends <= self._now():
            why = "has ended"
        elif standing is None:
            why = "its holder is disabled or removed"
        elif not hmac.compare_digest(_hash(standing.credential), record.credential):
            why = "its holder has another password now"
        else:
            return standing.principal
        await self._state.delete(_place(raw))
        raise BadCredentials(f"refresh token of {printable(record.principal)}: {why}")

    async def _next(self, raw: str, record: _Record, version: str) -> str:
        presented, now = _hash(raw), int(self._now())
        if hmac.compare_digest(presented, record.current):
            nonce = secrets.token_hex(16)
            following = _following(raw, nonce)
            new = msgspec.structs.replace(record, current=_hash(following), previous=presented, nonce=nonce, used=now)
            await self._state.write(_place(raw), msgspec.json.encode(new), expect=version)
            return following
        if hmac.compare_digest(presented, record.previous) and now - record.used <= GRACE:
            return _following(raw, record.nonce)
        await self._state.delete(_place(raw))
        raise BadCredentials(
            f"refresh token of {printable(record.principal)}: used before: somebody has a copy, its family is revoked"
        )


def _place(raw: str) -> str:
    """Where the family is kept: under a hash, so that whoever reads the state learns no part of a token."""
    return f"{_KEPT}{_hash(raw[:_FAMILY])[:32]}"


def _following(raw: str, nonce: str) -> str:
    seed = hmac.digest(raw.encode(), nonce.encode(), hashlib.sha256)
    return sealed(raw[:_FAMILY] + random_text(seed, len(PREFIX) + RANDOM - _FAMILY))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _decoded(stored: Stored) -> _Record:
    try:
        return msgspec.json.decode(stored.value, type=_Record)
    except msgspec.MsgspecError:
        raise StateUnavailable("what is kept of a refresh token is damaged") from None
