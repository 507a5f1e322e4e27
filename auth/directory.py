"""The directory: who somebody is, shown by a password, and what they are now.

Law: accounts, groups and rights are looked up when they are needed; what a token or a cache says about groups is
replaced by what the files say today, never added to it (rule T5). Outsiders keep their namespace (rule T6).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from moorage.auth.configuration import AuthConfig
from moorage.auth.errors import BadCredentials
from moorage.auth.htpasswd import Htpasswd
from moorage.auth.passwords import Passwords
from moorage.auth.principal import ISSUER, OIDC, PUBLISHER, ROBOT, Principal
from moorage.auth.robots import ROBOT_USER, Robots
from moorage.auth.state import RecentState, State
from moorage.auth.watched import WatchedFile

__all__ = ["Directory", "Standing"]

_NO_ACCOUNTS = Htpasswd.parse(b"", path="")


@dataclass(frozen=True, slots=True)
class Standing:
    """Who somebody is now. ``credential``: changes with their password or secret; empty where there is none here."""

    principal: Principal
    credential: str = ""


class Directory:
    """Accounts, robots and outsiders, as files and state have them. One per process, made after the fork.

    Args:
        config: what the operator's file says now.
        state: where the robots are; read at most ``state.RECENT`` seconds late.
        clock: seconds that never go back.
        now: Unix time.
    """

    def __init__(
        self,
        config: Callable[[], AuthConfig],
        state: State,
        *,
        passwords: Passwords | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._clock = clock
        self._passwords = passwords or Passwords(clock=clock)
        self._robots = Robots(RecentState(state, clock=clock), now=now)
        self._htpasswd: WatchedFile[Htpasswd] | None = None
        self._accounts()  # a file that is wrong is an error at the start

    async def login(self, user: str, password: str) -> Principal:
        """Who ``user`` is, if this is the password; ``robot+NAME`` with a robot's secret is that robot.

        Raises:
            BadCredentials: it is not, or they are unknown, disabled or expired; that takes the same time (T9).
            TooManyFailures: too many logins wait already.
            StateUnavailable: the robots cannot be read.
        """
        if user.startswith(ROBOT_USER):
            robot = await self._robots.login(user.removeprefix(ROBOT_USER), password)
            return self._grouped(robot.principal.name)
        accounts = self._accounts()
        if not accounts.accounts:
            raise BadCredentials("there is no account at all")
        await self._passwords.check(accounts, user, password)
        return self._grouped(user)

    async def current(self, principal: Principal) -> Principal | None:
        """Who ``principal`` is now, with the groups of now; None: disabled, removed, revoked or expired.

        Raises:
            StateUnavailable: the robots cannot be read.
        """
        standing = await self.standing(principal)
        return standing.principal if standing else None

    async def standing(self, principal: Principal) -> Standing | None:
        """As ``current``, with what shows whether the password is still the one that was.

        Raises:
            StateUnavailable: the robots cannot be read.
        """
        name = principal.name
        if principal.is_anonymous:
            return Standing(principal)
        if name.startswith(ROBOT):
            robot = await self._robots.current(name.removeprefix(ROBOT))
            return Standing(self._grouped(name), robot.credential) if robot else None
        if name.startswith(OIDC):
            return self._published(principal)
        if name.startswith(ISSUER):
            issuers = {one.name for one in self._config().token_issuers}
            return Standing(Principal(name)) if name.split(":", 2)[1] in issuers else None
        account = self._accounts().accounts.get(name)
        if account is None or account.is_disabled:
            return None
        return Standing(self._grouped(name), account.hash.decode())

    def close(self) -> None:
        """Lets the threads of the password check go."""
        self._passwords.close()

    def _published(self, principal: Principal) -> Standing | None:
        """A CI job keeps the publishers that matched it when it came, as far as there still are such."""
        issuer = principal.name.split(":", 2)[1]
        today = {f"{PUBLISHER}{one.name}" for one in self._config().publishers if one.issuer == issuer}
        groups = principal.groups & today
        return Standing(Principal(principal.name, groups)) if groups else None

    def _grouped(self, name: str) -> Principal:
        return Principal(name, self._config().groups_of(name))

    def _accounts(self) -> Htpasswd:
        path = self._config().htpasswd
        if path is None:
            return _NO_ACCOUNTS
        if self._htpasswd is None or self._htpasswd.path != path:
            self._htpasswd = Htpasswd.watch(path, clock=self._clock)
        return self._htpasswd.current()
