"""Accounts, robots and groups for the tests of authentication: real files, a real store, and a clock of their own."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import bcrypt
from moorage.auth.configuration import AuthConfig, PublisherConfig, TokenIssuerConfig
from moorage.auth.directory import Directory
from moorage.auth.policy import Policy
from moorage.auth.robots import Robots
from moorage.registry.auth_state import StoredState
from moorage.storage_backends.memory import MemoryStore

__all__ = ["World", "hashed"]


@cache
def hashed(password: str) -> str:
    """A line's hash, computed once."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()


class World:
    """Two accounts, a robot, and everything about them that can change. ``state``: what it shares with other worlds."""

    def __init__(self, folder: Path, state: StoredState | None = None) -> None:
        self.file = folder / "accounts"
        self.seconds = 1000.0
        self.state = state or StoredState(MemoryStore())
        self.robots = Robots(self.state, now=self.now)
        self.groups: dict[str, frozenset[str]] = {"dev": frozenset({"alice", "robot:ci"})}
        self.publishers: tuple[str, ...] = ("web", "api")
        self.token_issuers: tuple[str, ...] = ("old",)
        self.accounts(alice=hashed("alice's"), bob=hashed("bob's"))
        self.directory = Directory(self.config, self.state, clock=self.now, now=self.now)

    def now(self) -> float:
        """The time of every clock here, in seconds."""
        return self.seconds

    def accounts(self, **hashes: str) -> None:
        """Puts another htpasswd file in place; a second later it is in force."""
        new = self.file.with_suffix(".new")
        new.write_text("".join(f"{name}:{value}\n" for name, value in hashes.items()))
        os.replace(new, self.file)
        self.seconds += 1

    def config(self) -> AuthConfig:
        """What the operator's file says now."""
        return AuthConfig(
            Policy(),
            htpasswd=str(self.file),
            groups=self.groups,
            publishers=tuple(PublisherConfig(name, "github", (), (), frozenset()) for name in self.publishers),
            token_issuers=tuple(TokenIssuerConfig(name, "i", "s", (), ()) for name in self.token_issuers),
        )
