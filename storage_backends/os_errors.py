"""The border between the operating system's errors and ours. Law: no ``OSError`` leaves a store; its cause is kept."""

from __future__ import annotations

import errno
from types import TracebackType
from typing import Final

from moorage.storage_backends.errors import KeyInvalid, StorageError, StorageFull, StorageUnavailable

__all__ = ["storage_errors", "translate"]

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_WRONG_SHAPE: Final = frozenset({errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG})


def translate(error: OSError) -> StorageError:
    """What ``error`` means to whoever asked the store; paths stay out of the message, it may reach a stranger."""
    if error.errno in _NO_ROOM:
        return StorageFull(f"no room to write: {error.strerror}")
    if error.errno in _WRONG_SHAPE:
        return KeyInvalid("the key would hold another key, or lie in one")
    return StorageUnavailable(f"the file system failed: {error.strerror or error}")


class _Border:
    """A context manager without state, so that the hot paths share one."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise translate(error) from error


storage_errors: Final = _Border()
"""``with storage_errors:`` lets the errors of the storage port pass and turns every ``OSError`` into one of them."""
