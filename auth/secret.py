"""Secrets of our own making: a prefix that says what they are for, 40 random characters, and a checksum.

Law: 238 bits from the system's generator, so a plain hash keeps them; the checksum lets a scanner tell a secret from
a string that looks like one without asking us, and lets us refuse what was cut off when it was copied.
"""

from __future__ import annotations

import re
import secrets
import string
import zlib
from typing import Final

__all__ = ["RANDOM", "SECRET_PATTERN", "is_secret", "new_secret", "random_text", "sealed"]

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM: Final = 40
"""Characters between prefix and checksum."""

_CHECK: Final = 6  # digits of base 62 that hold 32 bits

SECRET_PATTERN: Final = r"mrgr?_[0-9A-Za-z]{46}"  # noqa: S105  # what they look like, not one
"""For secret scanners: robots' secrets and refresh tokens."""

_BODY = re.compile(rf"[0-9A-Za-z]{{{RANDOM + _CHECK}}}")


def new_secret(prefix: str) -> str:
    """A secret that begins with ``prefix``."""
    return sealed(prefix + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM)))


def is_secret(text: str, prefix: str) -> bool:
    """Whether ``text`` can be a secret with this prefix: whole, and nothing mistyped."""
    body = text.removeprefix(prefix)
    return text.startswith(prefix) and _BODY.fullmatch(body) is not None and sealed(text[:-_CHECK]) == text


def random_text(seed: bytes, length: int) -> str:
    """``length`` characters, at most 40, that follow from 32 random bytes."""
    number, text = int.from_bytes(seed), ""
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        text += _ALPHABET[digit]
    return text


def sealed(text: str) -> str:
    """``text`` with its checksum: CRC-32 in base 62."""
    rest, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CHECK):
        rest, digit = divmod(rest, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return text + digits
