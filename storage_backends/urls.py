"""What a store is called on the command line. Law: naming a store loads no other backend than its own."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from moorage.storage_backends.base import ObjectStore
from moorage.storage_backends.errors import StorageError

__all__ = ["open_store"]


async def open_store(url: str, *, read_only: bool = False) -> ObjectStore:
    """Opens the store that ``url`` names: a path, ``file:///path``, ``s3://BUCKET/PREFIX?endpoint=...`` (the other
    options are the fields of ``s3.Location``), or ``memory:`` for one that forgets.

    Args:
        read_only: nobody is going to write, so a directory that cannot be written to will do.

    Raises:
        StorageError: there is no such kind of store, or it cannot keep what is promised.
        StorageUnavailable: it does not answer.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from moorage.storage_backends.s3 import Location, S3Store  # noqa: PLC0415  # the law

        return await S3Store.open(Location.parse(url))
    if parts.scheme == "memory":
        from moorage.storage_backends.memory import MemoryStore  # noqa: PLC0415  # the law

        return MemoryStore()
    if "://" in url and parts.scheme != "file":
        raise StorageError(f"no store is called {parts.scheme}://")
    from moorage.storage_backends.filesystem import FilesystemStore  # noqa: PLC0415  # the law

    path = _path(url)
    if not path:
        raise StorageError(f"{url!r} names no directory")
    return await FilesystemStore.open(path, read_only=read_only)


def _path(url: str) -> str:
    if not url.startswith("file:"):
        return url
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise StorageError("a file: URL names no other host: write file:///path")
    return unquote(parts.path)
