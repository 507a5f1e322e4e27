"""The htpasswd file: the accounts, and what each password hashes to.

Law: bcrypt only, with a cost from 10 to 16 (rule T13); a line that is anything else refuses the whole file and says how
to mend it, since to skip it would lock its owner out in silence. A ``!`` before the hash disables an account, as in
``/etc/shadow``; Apache's tools read such a line as a password that never fits.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from moorage.auth.errors import ConfigurationError
from moorage.auth.principal import printable
from moorage.auth.watched import WatchedFile

__all__ = ["COSTS", "Account", "Htpasswd", "account_name"]

COSTS: Final = range(10, 17)
"""Costs of bcrypt that are taken: below 10 too cheap to guess, above 16 a login takes seconds."""

_BCRYPT = re.compile(r"\$2[aby]\$(?P<cost>[0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
_RESERVED: Final = {"oidc": "CI jobs log in by it", "anonymous": "it stands for nobody in messages"}


@dataclass(frozen=True, slots=True)
class Account:
    """One line. ``hash``: as bcrypt writes it."""

    name: str
    hash: bytes = field(repr=False)
    is_disabled: bool = False

    @property
    def cost(self) -> int:
        """The binary logarithm of the work that one guess takes."""
        return int(self.hash[4:6])


@dataclass(frozen=True, slots=True)
class Htpasswd:
    """A file that has been checked. ``top_cost``: the highest cost in it, which every failed login is to take."""

    accounts: Mapping[str, Account]
    top_cost: int

    @classmethod
    def parse(cls, raw: bytes, *, path: str) -> Self:
        """The accounts in the bytes of a file. ``path``: what messages call it.

        Raises:
            ConfigurationError: a line is wrong; says which, and what to do.
        """
        accounts: dict[str, Account] = {}
        for number, line in enumerate(_text(raw, path).splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                account = _account(line.rstrip(), path, f"{path}, line {number}")
                if account.name in accounts:
                    raise ConfigurationError(f"{path}, line {number}: the account {account.name} stands twice")
                accounts[account.name] = account
        return cls(accounts, max((one.cost for one in accounts.values()), default=COSTS.start))

    @classmethod
    def watch(cls, path: str, *, clock: Callable[[], float] = time.monotonic) -> WatchedFile[Self]:
        """The file at ``path``, which is read again when it changes.

        Raises:
            ConfigurationError: it cannot be read, or a line is wrong.
        """
        return WatchedFile(path, lambda path, raw, _: cls.parse(raw, path=path), clock=clock)

    @classmethod
    def load(cls, path: str) -> Self:
        """The accounts in the file at ``path``.

        Raises:
            ConfigurationError: it cannot be read, or a line is wrong.
        """
        return cls.watch(path).current()


def account_name(raw: str) -> str:
    """``raw``, if an account may be called so.

    Raises:
        ValueError: it may not; says why.
    """
    if raw in _RESERVED:
        raise ValueError(f"no account can be called {raw}: {_RESERVED[raw]}")
    if _NAME.fullmatch(raw) is None:
        raise ValueError(
            f"{printable(raw)!r} is no name for an account: letters, digits and . _ @ - are, 128 at most, "
            "the first a letter or a digit"
        )
    return raw


def _text(raw: bytes, path: str) -> str:
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not an htpasswd file: it holds more than ASCII") from None


def _account(line: str, path: str, where: str) -> Account:
    name, colon, rest = line.partition(":")
    if not colon:
        raise ConfigurationError(
            f"{where}: expected name:hash; make one with `moorage user add NAME --htpasswd {path}`"
        )
    try:
        account_name(name)
    except ValueError as exc:
        raise ConfigurationError(f"{where}: {exc}") from None
    hashed = rest.removeprefix("!")
    mend = f"set it anew with `moorage user passwd {name} --htpasswd {path}` or `htpasswd -B -C 10`"
    match = _BCRYPT.fullmatch(hashed)
    if match is None:
        raise ConfigurationError(f"{where}: the password of {name} is not hashed with bcrypt; {mend}")
    if int(match["cost"]) not in COSTS:
        raise ConfigurationError(
            f"{where}: the password of {name} has bcrypt cost {int(match['cost'])}, and {COSTS.start} to {COSTS[-1]} "
            f"are taken; {mend}"
        )
    return Account(name, hashed.encode(), is_disabled=rest.startswith("!"))
