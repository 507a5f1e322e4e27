"""The rules of ``put`` and ``delete`` that hold for every store.

Law: a store asks these before it changes anything, and inside the lock that makes the change.
"""

from __future__ import annotations

from moorage.storage_backends.base import ABSENT, ANY, UPLOADS, Expect, check_key
from moorage.storage_backends.errors import Conflict, KeyInvalid

__all__ = ["check_writable_key", "require"]


def require(key: str, expect: Expect, version: str | None) -> None:
    """Passes if an object of ``version`` (None: no object) is what ``expect`` asks for.

    Raises:
        Conflict: it is not.
    """
    if expect is ANY:
        return
    if expect is ABSENT:
        if version is not None:
            raise Conflict(f"{key} exists")
    elif version != expect:
        raise Conflict(f"{key} is not of the version expected")


def check_writable_key(key: str) -> str:
    """``key``, if an object may be put there: the records of uploads change with their bytes only.

    Raises:
        KeyInvalid: it may not.
    """
    if f"{key}/".startswith(UPLOADS):
        raise KeyInvalid(f"only an upload writes {key}")
    return check_key(key)
