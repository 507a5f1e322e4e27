"""A directory as a store: the object ``a/b/c`` is the file ``a/b/c``, so ordinary tools see, copy and back it up.

    <root>/                        0700; files 0600
        …                          objects
        uploads/<id>               records of open uploads
        .moorage/tmp/              files on their way to a name; older than a day they are removed at start
        .moorage/staging/<id>      bytes of open uploads
        .moorage/locks/<nn>        lock stripes

Law of writing: a file with content is written aside and synced, then linked (a new name) or renamed under a lock (an
old one), then its directory is synced, and only then the write returns. Any number of processes may write at once.
Law of the event loop: a few system calls on what is cached run on it; what may take long runs in a thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Final, Self

from moorage.storage_backends.base import (
    ABSENT,
    ANY,
    Capabilities,
    CommonPrefix,
    Expect,
    ObjectInfo,
    Reading,
    UploadInfo,
    check_key,
    check_prefix,
)
from moorage.storage_backends.crowds import Crowds
from moorage.storage_backends.durability import Batch, Disk, Flusher, uninterrupted
from moorage.storage_backends.errors import Conflict, KeyInvalid, KeyNotFound
from moorage.storage_backends.expectation import check_writable_key, require
from moorage.storage_backends.facts import facts
from moorage.storage_backends.locks import Stripes, briefly
from moorage.storage_backends.os_errors import storage_errors
from moorage.storage_backends.reading import Opening, Reader
from moorage.storage_backends.root import accept_root, prepare_root
from moorage.storage_backends.staging import Staging
from moorage.storage_backends.tree import Tree
from moorage.storage_backends.upload_record import UploadRecord, is_upload
from moorage.storage_backends.walk import PRIVATE, Walk

__all__ = ["FilesystemStore"]

_THREADS: Final = 8
_BIG: Final = 1 << 20
"""Bytes of a file above which its removal, which frees every block, is left to a thread."""

_STALE: Final = 24 * 3600.0
"""Seconds after which a temporary file is taken for the remains of a crash."""

_NOT_WRITABLE: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class FilesystemStore:
    """An ``ObjectStore`` in a directory, made by ``await FilesystemStore.open(root)``. It belongs to one event loop."""

    capabilities = Capabilities(conditional_delete=True)

    def __init__(self, root: str, disk: Disk) -> None:
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="moorage-store")
        self._tree = Tree(root, disk)
        self._crowds = Crowds(self._tree.base)
        self._stripes = Stripes(f"{self._tree.private}locks")
        self._flusher = Flusher(root, disk)
        self._reader = Reader(self._run)
        self._staging = Staging(self._tree, self._stripes, disk, self._run)

    @classmethod
    async def open(cls, root: str | os.PathLike[str], *, disk: Disk | None = None, read_only: bool = False) -> Self:
        """Opens the store in the directory ``root``, which is made if it is missing.

        Args:
            read_only: nobody is going to write, so a root that cannot be written to will do.

        Raises:
            StorageError: it is no directory, or holds something else; others may write into it, or it takes ``a`` and
                ``A`` for the same name.
            StorageUnavailable: the file system failed.
        """
        disk = disk or Disk()
        store = cls(os.path.abspath(os.fspath(root)), disk)  # noqa: ASYNC240  # asks for the working directory only
        with storage_errors:
            try:
                await uninterrupted(store._run(lambda: store._prepare(disk, read_only=read_only)))
            except BaseException:
                await store.close()
                raise
        return store

    def __repr__(self) -> str:
        return f"<FilesystemStore root={self._tree.root!r}>"

    async def stat(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.stat``."""
        with storage_errors:
            status = self._tree.status(_shown(key))
        if status is None:
            raise KeyNotFound(key)
        return facts(key, status)

    def read(self, key: str, *, start: int = 0, stop: int | None = None) -> AbstractAsyncContextManager[Reading]:
        """See ``ObjectStore.read``."""
        return Opening(key, self._tree.base + _shown(key), start, stop, self._reader)

    async def put(self, key: str, data: bytes, *, expect: Expect = ANY) -> str:
        """See ``ObjectStore.put``."""
        _writable(key)
        touched: set[str] = set()
        with storage_errors:
            version = self._put_empty(key, expect, touched) if not data else None
            if version is None:
                version = await self._put_aside(key, data, expect, touched)
        await self._make_durable(touched)
        return version

    async def copy(self, src: str, dst: str) -> ObjectInfo:
        """See ``ObjectStore.copy``. Both keys then share one file, which nothing ever changes."""
        _shown(src)
        _writable(dst)
        touched: set[str] = set()
        with storage_errors:
            info = await briefly(self._run, lambda wait: self._copy(src, dst, touched, wait=wait))
        await self._make_durable(touched)
        return info

    async def delete(self, key: str, *, expect: Expect = ANY) -> None:
        """See ``ObjectStore.delete``."""
        _writable(key)
        touched: set[str] = set()
        with storage_errors:
            status = self._tree.status(key)
            if status is not None and status.st_size > _BIG:
                await uninterrupted(self._run(lambda: self._delete(key, expect, touched, wait=True)))
            else:
                await briefly(self._run, lambda wait: self._delete(key, expect, touched, wait=wait))
        await self._make_durable(touched)

    def list(
        self, prefix: str, *, after: str = "", delimiter: str | None = None
    ) -> AsyncIterator[ObjectInfo | CommonPrefix]:
        """See ``ObjectStore.list``."""
        check_prefix(prefix)
        if delimiter not in (None, "/"):
            raise KeyInvalid("keys are delimited by '/'")
        return Walk(self._tree.base, prefix, after, delimited=delimiter is not None, run=self._run, crowds=self._crowds)

    async def create_upload(self, key: str, note: bytes) -> str:
        """See ``ObjectStore.create_upload``."""
        _writable(key)
        upload = secrets.token_hex(16)
        with storage_errors:
            self._staging.create(upload, UploadRecord(key=key, offset=0, note=note))
        return upload

    async def append_upload(
        self, upload: str, offset: int, data: AsyncIterable[bytes], note: Callable[[int], bytes]
    ) -> UploadInfo:
        """See ``ObjectStore.append_upload``. Waits up to 5 s for another writer."""
        return await self._staging.append(upload, offset, data, note)

    async def stat_upload(self, upload: str) -> UploadInfo:
        """See ``ObjectStore.stat_upload``."""
        with storage_errors:
            return self._staging.stat(upload)

    async def commit_upload(self, upload: str, offset: int) -> ObjectInfo:
        """See ``ObjectStore.commit_upload``."""
        touched: set[str] = set()
        info = await self._staging.commit(upload, offset, touched)
        await self._make_durable(touched)
        return info

    async def abort_upload(self, upload: str) -> None:
        """See ``ObjectStore.abort_upload``. After a power cut it may be back, until it expires."""
        if is_upload(upload):
            with storage_errors:
                await uninterrupted(self._run(self._staging.abort, upload))

    async def presign(self, key: str, ttl: int, *, headers: Mapping[str, str]) -> str | None:
        """None: a directory has no address."""
        return None

    def batch(self) -> AbstractAsyncContextManager[None]:
        """See ``ObjectStore.batch``."""
        return Batch(self._flusher)

    async def close(self) -> None:
        """Ends the threads, when they have done what they began."""
        await asyncio.to_thread(self._executor.shutdown)
        await self._flusher.close()

    def _run(self, work: Callable[..., Any], /, *arguments: object) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    async def _make_durable(self, touched: set[str]) -> None:
        batch = Batch.current(self._flusher)
        if batch is not None:
            batch.add(touched)
        else:
            await self._flusher.sync(touched)

    def _put_empty(self, key: str, expect: Expect, touched: set[str]) -> str | None:
        """Makes an empty object, if nothing is at ``key`` and nothing has to be; else None."""
        if expect is not ANY and expect is not ABSENT:
            return None
        try:
            return self._tree.create(key, b"", touched)
        except FileExistsError:
            return None

    async def _put_aside(self, key: str, data: bytes, expect: Expect, touched: set[str]) -> str:
        require(key, expect, self._tree.version(key))  # before anything is written, and again when it counts
        version: str = await uninterrupted(self._run(self._put, key, data, expect, touched))
        return version

    def _put(self, key: str, data: bytes, expect: Expect, touched: set[str]) -> str:
        with self._tree.staged(data, durable=True) as (path, version):
            if expect is ANY or expect is ABSENT:
                try:
                    self._tree.link(path, key, touched)
                except FileExistsError:
                    if expect is ABSENT:
                        raise Conflict(f"{key} exists") from None
                else:
                    return version
            with self._stripes.hold(key, wait=True):
                require(key, expect, self._tree.version(key))
                self._tree.move(path, key, touched)
            return version

    def _copy(self, src: str, dst: str, touched: set[str], *, wait: bool) -> ObjectInfo:
        with self._tree.linked_aside(src) as path, self._stripes.hold(dst, wait=wait):
            self._tree.move(path, dst, touched)
            return facts(dst, os.stat(self._tree.base + dst, follow_symlinks=False))

    def _delete(self, key: str, expect: Expect, touched: set[str], *, wait: bool) -> None:
        with self._stripes.hold(key, wait=wait):
            version = self._tree.version(key)
            if version is not None:
                require(key, expect, version)
            self._tree.remove(key, touched)

    def _prepare(self, disk: Disk, *, read_only: bool) -> None:
        stale_before = time.time() - _STALE
        try:
            prepare_root(self._tree, disk, stale_before=stale_before)
            self._stripes.create()
            self._staging.sweep(stale_before)
        except OSError as exc:
            if not read_only or exc.errno not in _NOT_WRITABLE:
                raise
            accept_root(self._tree)
            self.capabilities = replace(self.capabilities, writable=False)


def _shown(key: str) -> str:
    check_key(key)
    if key.startswith(PRIVATE):
        raise KeyInvalid(f"{PRIVATE} is the store's own")
    return key


def _writable(key: str) -> str:
    check_writable_key(key)
    if f"{key}/".startswith(PRIVATE):
        raise KeyInvalid(f"{PRIVATE} is the store's own")
    return key
