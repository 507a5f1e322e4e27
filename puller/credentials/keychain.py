"""The keychain: all places where credentials may be, asked in order; the first that has some decides.

Law: a place that cannot be understood stops the search with an error: going on would log in as somebody else, or as
nobody, without a word. Helper programs run only while nothing was found yet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Protocol, Self

from moorage.puller.credentials.helpers import ask_helper
from moorage.puller.credentials.model import Credentials, Finding, Source, Target
from moorage.puller.credentials.places import all_places
from moorage.puller.errors import CredentialsUnusable
from moorage.puller.origins import Origin
from moorage.puller.threads import in_thread

__all__ = ["FixedKeychain", "Keychain", "Keys"]


class Keys(Protocol):
    """Something that knows credentials."""

    async def find(self, origin: Origin, repository: str = "") -> Credentials | None:
        """The credentials to show to a registry; None: nobody is logged in there.

        Raises:
            CredentialsUnusable: there are some that cannot be used.
        """
        ...


class FixedKeychain:
    """The same credentials for whatever registry it is made for."""

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials

    async def find(self, origin: Origin, repository: str = "") -> Credentials | None:
        """See ``Keys``."""
        return self._credentials


class Keychain:
    """The credentials of this user on this machine."""

    def __init__(self, places: tuple[Source, ...]) -> None:
        self._places = places

    @classmethod
    def default(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The places that the environment names; see ``places``."""
        return cls(all_places(os.environ if environment is None else environment))

    async def find(self, origin: Origin, repository: str = "") -> Credentials | None:
        """See ``Keys``. Files and helper programs are read in a thread."""
        return await in_thread(partial(self._find, Target(origin, repository)))

    def explain(self, target: Target) -> Iterator[Finding]:
        """What each place has for ``target``, in order; a failure is a reason too. Blocks.

        After the first credentials no helper is asked any more; its finding keeps its ``helper``.
        """
        is_open = True
        for place in self._places:
            try:
                for finding in place.look(target):
                    answered = _answered(finding) if is_open else finding
                    is_open = is_open and answered.credentials is None
                    yield answered
            except CredentialsUnusable as exc:
                yield Finding(place.name, exc.message, is_failure=True)
                is_open = False

    def _find(self, target: Target) -> Credentials | None:
        for finding in (finding for place in self._places for finding in place.look(target)):
            try:
                credentials = _answered(finding).credentials
            except CredentialsUnusable as exc:
                raise CredentialsUnusable(f"{finding.source}: {exc.message}") from exc
            if credentials is not None:
                return credentials
        return None


def _answered(finding: Finding) -> Finding:
    """The finding after its helper, if it names one, was asked."""
    if finding.helper is None:
        return finding
    credentials = ask_helper(finding.helper, finding.servers)
    return finding.answered(credentials, f"{finding.reason}, which has {'it' if credentials else 'nothing'}")
