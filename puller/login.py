"""Answers a registry's challenges: Basic, and the Bearer tokens of the docker token protocol (``tokens``).

Law: credentials belong to one registry. They are shown to it, and to a token service that belongs to it (``realms``);
they never print. The keychain is asked when a registry asks us, not before.
Law of sharing: of several requests that are under way at once for the same scope, one logs in for all, and its failure
is theirs too, however late they are refused: a wrong password is tried once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from moorage.auth.scope import Scope
from moorage.puller.messages import Answer
from moorage.puller.origins import Origin
from moorage.puller.transport import Transport
from moorage.registry.oci import OciError, Unauthorized

if TYPE_CHECKING:
    from moorage.puller.credentials import Credentials, Keys
    from moorage.puller.tokens import Grant

__all__ = ["Login"]

_KEPT = 300.0
"""Seconds for which credentials are not looked up again: some helpers take a second, and what they give expires."""


class Login:
    """What to send as ``Authorization`` to one registry, scope by scope.

    Args:
        keys: who we are there; None: whoever this machine's user is (``Keychain.default``).
        realms: token services elsewhere that the configuration allows.

    Attributes:
        failures: logins that failed so far; read before a request, it tells which of them the request has missed.
    """

    def __init__(
        self, transport: Transport, origin: Origin, keys: Keys | None, *, realms: Collection[Origin] = ()
    ) -> None:
        self._transport, self._origin, self._keys, self._realms = transport, origin, keys, realms
        self._grants: dict[Scope, Grant] = {}
        self._fixed: dict[str, str] = {}
        self._found: dict[str, tuple[float, Credentials | None]] = {}
        self._turns: WeakValueDictionary[Scope, asyncio.Lock] = WeakValueDictionary()
        self._failed: dict[Scope, tuple[int, OciError]] = {}
        self.failures = 0

    def __repr__(self) -> str:
        return f"<Login to {self._origin}>"

    def header(self, scope: Scope) -> str | None:
        """The header value known to serve ``scope``, or None."""
        fixed = self._fixed.get(_repository_of(scope)) if self._fixed else None
        if fixed is not None or not self._grants:
            return fixed
        now = time.monotonic()
        exact = self._grants.get(scope)
        wider = (grant for granted, grant in self._grants.items() if granted.covers(scope))
        return next((grant.header for grant in (exact, *wider) if grant and grant.expires > now), None)

    async def answer_challenge(self, scope: Scope, answer: Answer, *, sent: str | None, failures: int) -> bool:
        """Logs in as a 401 asks. True: ``header`` now gives something else than ``sent``, the header that was refused;
        False: it asks for nothing that we know.

        Args:
            failures: what ``failures`` was when the request was sent.

        Raises:
            Unauthorized, Denied: the token service refused, or there are no credentials.
            BadAnswer: the challenge points to a place that must not see credentials.
        """
        async with self._turns.setdefault(scope, asyncio.Lock()):
            number, failure = self._failed.get(scope, (0, None))
            if failure is not None and number > failures:
                raise failure
            if self.header(scope) not in (None, sent):
                return True
            try:
                return await self._log_in(scope, answer.header_lines("WWW-Authenticate"), sent)
            except OciError as exc:
                self.failures += 1
                self._failed[scope] = self.failures, exc
                raise

    def refusal(self, scope: Scope) -> Unauthorized:
        """What to say of a registry that refuses what a login has just given."""
        _, credentials = self._found.get(_repository_of(scope), (0.0, None))
        what = str(scope) or "to use it"
        if credentials is None:
            from moorage.puller.tokens import invitation  # noqa: PLC0415 (see the law of tokens)

            return Unauthorized(f"{self._origin}: not permitted without a login ({invitation(self._origin)}): {what}")
        return Unauthorized(f"{self._origin}: not permitted to {credentials.who}: {what}")

    async def _log_in(self, scope: Scope, lines: list[str], sent: str | None) -> bool:
        from moorage.auth.challenge import parse_challenges  # noqa: PLC0415 (see the law of tokens)
        from moorage.puller.tokens import TokenService, lacking  # noqa: PLC0415

        offered = {challenge.scheme: challenge for challenge in reversed(parse_challenges(lines))}
        if not offered.keys() & {"bearer", "basic"}:
            return False
        credentials = await self._find_credentials(_repository_of(scope), afresh=sent is not None)
        if credentials is not None and credentials.registry_token:
            return self._fix(scope, f"Bearer {credentials.registry_token}", sent)
        if "bearer" in offered:
            service = TokenService.of(offered["bearer"], self._origin, scope, allowed=self._realms)
            self._forget_expired()
            self._grants[scope] = await service.fetch(self._transport, credentials)
            return True
        if credentials is None or not credentials.password:
            raise Unauthorized(f"{self._origin}: {lacking(self._origin, credentials)}")
        return self._fix(scope, credentials.basic, sent)

    def _fix(self, scope: Scope, header: str, sent: str | None) -> bool:
        """Uses one header from now on for everything in the scope's repository.

        Raises:
            Unauthorized: it was refused already.
        """
        if header == sent:
            raise self.refusal(scope)
        self._fixed[_repository_of(scope)] = header
        return True

    async def _find_credentials(self, repository: str, *, afresh: bool) -> Credentials | None:
        since, found = self._found.get(repository, (None, None))
        if self._keys is None:
            from moorage.puller.credentials import Keychain  # noqa: PLC0415 (6 ms, and public images need none)

            self._keys = Keychain.default()
        if afresh or since is None or time.monotonic() - since > _KEPT:
            found = await self._keys.find(self._origin, repository)
            self._found[repository] = (time.monotonic(), found)
        return found

    def _forget_expired(self) -> None:
        now = time.monotonic()
        self._grants = {scope: grant for scope, grant in self._grants.items() if grant.expires > now}


def _repository_of(scope: Scope) -> str:
    """The repository whose credentials serve ``scope``: of several the one that is written to."""
    names = [
        (action != "push", resource.name) for resource, action in scope.permissions if resource.type == "repository"
    ]
    return min(names)[1] if names else ""
