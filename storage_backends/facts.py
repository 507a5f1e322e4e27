"""What a file says of the object in it. Law: a new inode or a new time is a new version."""

from __future__ import annotations

import os

from moorage.storage_backends.base import ObjectInfo

__all__ = ["facts", "version_of"]


def facts(key: str, status: os.stat_result) -> ObjectInfo:
    """An object as the file system tells it."""
    return ObjectInfo(key, status.st_size, version_of(status), status.st_mtime)


def version_of(status: os.stat_result) -> str:
    """The version of the object in a file."""
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}"
