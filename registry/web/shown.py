"""What a request shows of who asks: the Authorization header, and nothing else.

Law (rule T8): a secret is read here only; a token in a URL, a form or a cookie is not looked at. Secrets do not print.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from moorage.registry.oci import Unauthorized

__all__ = ["Basic", "Bearer", "authorization_in", "read_authorization"]

_LONGEST: Final = 16 * 1024
"""Bytes of the header: the token of a CI job, written as a password, has at most 12 KiB (rule T10)."""


@dataclass(frozen=True, slots=True)
class Basic:
    """A name and a password, or what stands for one."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token."""

    token: str = field(repr=False)


def authorization_in(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The Authorization header (of names in lower case); None: there is none.

    Raises:
        Unauthorized: there are two, of which a guess could take the wrong one.
    """
    found: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if found is not None:
                raise Unauthorized("more than one Authorization header")
            found = value
    return found


def read_authorization(header: bytes) -> Basic | Bearer:
    """What the header shows.

    Raises:
        Unauthorized: it is unreadable, or too long.
    """
    scheme, _, rest = header.partition(b" ")
    if len(header) <= _LONGEST:
        match scheme.lower():
            case b"bearer":
                return Bearer(rest.strip().decode("latin-1"))
            case b"basic":
                return _basic(rest.strip())
    raise Unauthorized("the Authorization header is neither Basic nor Bearer, or longer than 16 KiB")


def _basic(encoded: bytes) -> Basic:
    try:
        # RFC 7617 leaves the charset open, and every client sends UTF-8.
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        user = colon = password = ""
    if not colon:
        raise Unauthorized("the Authorization header is not Basic as RFC 7617 has it")
    return Basic(user, password)
