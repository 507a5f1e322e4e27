"""Errors of the storage port. Rule: a backend raises these and ``asyncio.CancelledError``, nothing else.

StorageError
├── KeyInvalid       your fault: the key breaks the grammar
├── KeyNotFound      nothing there
├── Conflict         somebody else was first
├── UploadNotFound   no such upload: never made, committed or aborted
├── OffsetMismatch   the upload is somewhere else, or busy
├── StorageUnavailable   the store cannot answer now; trying again may help
└── StorageFull          no room (bytes, inodes, quota); reads go on
"""

from __future__ import annotations

__all__ = [
    "Conflict",
    "KeyInvalid",
    "KeyNotFound",
    "OffsetMismatch",
    "StorageError",
    "StorageFull",
    "StorageUnavailable",
    "UploadNotFound",
]


class StorageError(Exception):
    """Something went wrong with stored bytes."""


class KeyInvalid(StorageError):
    """The key breaks the grammar of ``check_key``."""


class KeyNotFound(StorageError):
    """No object has this key."""


class Conflict(StorageError):
    """The object is not what ``expect`` asked for; nothing was changed."""


class UploadNotFound(StorageError):
    """No such upload: it was never made, or is committed or aborted."""


class OffsetMismatch(StorageError):
    """The upload does not stand at the offset given, or another writer has it; nothing was changed.

    ``offset``: where it stands, in bytes.
    """

    def __init__(self, offset: int) -> None:
        self.offset = offset
        super().__init__(f"upload stands at byte {offset}")


class StorageUnavailable(StorageError):
    """The store cannot answer now."""


class StorageFull(StorageError):
    """The store has no room for this write."""
