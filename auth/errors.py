"""Errors of authentication. Rule: a message is for the operator's log or terminal; a client learns the class only.

AuthError
├── BadCredentials       who they say they are was not shown; which part was wrong is not said
├── InvalidToken         a token that is not to be believed
│   └── ExpiredToken     … any more
├── TooManyFailures      too many wrong logins, or too many at once: later
├── IssuerUnavailable    the keys of a token's issuer cannot be had now
├── StateConflict        somebody else changed the value first
├── StateUnavailable     the state cannot be read or written now
│   └── StateReadOnly    … or can be read, but never written
└── ConfigurationError   the operator's file is wrong
"""

from __future__ import annotations

__all__ = [
    "AuthError",
    "BadCredentials",
    "ConfigurationError",
    "ExpiredToken",
    "InvalidToken",
    "IssuerUnavailable",
    "StateConflict",
    "StateReadOnly",
    "StateUnavailable",
    "TooManyFailures",
]


class AuthError(Exception):
    """Something about who acts, or what they may do, is not in order."""


class BadCredentials(AuthError):
    """The name or the secret is wrong, disabled, revoked or expired. The message is for logs, never for the client."""


class InvalidToken(AuthError):
    """The token is not to be believed. ``reason``: one word for the log, such as ``signature`` or ``audience``."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"invalid token: {reason}")


class ExpiredToken(InvalidToken):
    """The token was good once; the client is to fetch another."""

    def __init__(self) -> None:
        super().__init__("expired")


class TooManyFailures(AuthError):
    """No further login is looked at for now. ``retry_after``: whole seconds until one will be."""

    def __init__(self, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(f"too many logins: try again in {retry_after} s")


class IssuerUnavailable(AuthError):
    """The keys of a token's issuer cannot be had now, so nobody can say whether the token is good; trying again may
    help. The message is for logs."""


class StateConflict(AuthError):
    """The value is not the one that was expected; nothing was changed."""


class StateUnavailable(AuthError):
    """The state cannot be reached now, so nothing that depends on it is allowed; trying again may help."""


class StateReadOnly(StateUnavailable):
    """The state can be read, but nothing can be kept in it."""


class ConfigurationError(AuthError):
    """The operator's file is wrong; the message is one line that says where and what to do."""
