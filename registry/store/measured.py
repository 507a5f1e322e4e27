"""An object store that counts and times what is asked of the one behind it.

Law: it changes nothing: same answers, same errors, same order. Every method of the port is spelled out, so a primitive
added later is missing here until somebody says how it is counted.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from time import perf_counter_ns
from types import TracebackType
from typing import Final, Protocol, TypeVar

from moorage.storage_backends.base import (
    ANY,
    Capabilities,
    CommonPrefix,
    Expect,
    ObjectInfo,
    ObjectStore,
    Reading,
    UploadInfo,
)
from moorage.storage_backends.errors import StorageFull, StorageUnavailable

__all__ = ["OPERATIONS", "MeasuredStore", "StorageMeter"]

OPERATIONS: Final = (
    "stat",
    "read",
    "put",
    "copy",
    "delete",
    "list",
    "create_upload",
    "append_upload",
    "stat_upload",
    "commit_upload",
    "abort_upload",
    "presign",
    "sync",
)
"""What is counted. ``read`` and ``list`` are timed to their first answer, ``append_upload`` includes waiting for the
client, ``sync`` is the end of a batch: the wait until its writes are durable."""

(_STAT, _READ, _PUT, _COPY, _DELETE, _LIST, _CREATE, _APPEND, _STAT_UPLOAD, _COMMIT, _ABORT, _PRESIGN, _SYNC) = range(
    len(OPERATIONS)
)
_T = TypeVar("_T")


class StorageMeter(Protocol):
    """Takes the figures; called on the event loop, several times per request."""

    def storage(self, operation: int, nanoseconds: int, *, failed: bool) -> None:
        """One operation ended. ``operation``: index into ``OPERATIONS``; ``failed``: the store could not do it."""


async def _timed(meter: StorageMeter, operation: int, call: Awaitable[_T]) -> _T:
    """Absent keys and lost races are answers; only a store that cannot do its work has failed."""
    failed, began = False, perf_counter_ns()
    try:
        return await call
    except (StorageUnavailable, StorageFull):
        failed = True
        raise
    finally:
        meter.storage(operation, perf_counter_ns() - began, failed=failed)


class MeasuredStore(ObjectStore):
    """``store``, measured by ``meter``."""

    def __init__(self, store: ObjectStore, meter: StorageMeter) -> None:
        self._store = store
        self._meter = meter
        self.capabilities: Capabilities = store.capabilities

    async def _timed(self, operation: int, call: Awaitable[_T]) -> _T:
        return await _timed(self._meter, operation, call)

    async def stat(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.stat``."""
        return await self._timed(_STAT, self._store.stat(key))

    def read(self, key: str, *, start: int = 0, stop: int | None = None) -> AbstractAsyncContextManager[Reading]:
        """See ``ObjectStore.read``."""
        return _TimedEntry(self._store.read(key, start=start, stop=stop), self._meter)

    async def put(self, key: str, data: bytes, *, expect: Expect = ANY) -> str:
        """See ``ObjectStore.put``."""
        return await self._timed(_PUT, self._store.put(key, data, expect=expect))

    async def copy(self, src: str, dst: str) -> ObjectInfo:
        """See ``ObjectStore.copy``."""
        return await self._timed(_COPY, self._store.copy(src, dst))

    async def delete(self, key: str, *, expect: Expect = ANY) -> None:
        """See ``ObjectStore.delete``."""
        await self._timed(_DELETE, self._store.delete(key, expect=expect))

    def list(
        self, prefix: str, *, after: str = "", delimiter: str | None = None
    ) -> AsyncIterator[ObjectInfo | CommonPrefix]:
        """See ``ObjectStore.list``."""
        return _TimedStart(self._store.list(prefix, after=after, delimiter=delimiter), self._meter)

    async def create_upload(self, key: str, note: bytes) -> str:
        """See ``ObjectStore.create_upload``."""
        return await self._timed(_CREATE, self._store.create_upload(key, note))

    async def append_upload(
        self, upload: str, offset: int, data: AsyncIterable[bytes], note: Callable[[int], bytes]
    ) -> UploadInfo:
        """See ``ObjectStore.append_upload``."""
        return await self._timed(_APPEND, self._store.append_upload(upload, offset, data, note))

    async def stat_upload(self, upload: str) -> UploadInfo:
        """See ``ObjectStore.stat_upload``."""
        return await self._timed(_STAT_UPLOAD, self._store.stat_upload(upload))

    async def commit_upload(self, upload: str, offset: int) -> ObjectInfo:
        """See ``ObjectStore.commit_upload``."""
        return await self._timed(_COMMIT, self._store.commit_upload(upload, offset))

    async def abort_upload(self, upload: str) -> None:
        """See ``ObjectStore.abort_upload``."""
        await self._timed(_ABORT, self._store.abort_upload(upload))

    async def presign(self, key: str, ttl: int, *, headers: Mapping[str, str]) -> str | None:
        """See ``ObjectStore.presign``."""
        return await self._timed(_PRESIGN, self._store.presign(key, ttl, headers=headers))

    def batch(self) -> AbstractAsyncContextManager[None]:
        """See ``ObjectStore.batch``."""
        return _TimedExit(self._store.batch(), self._meter)

    async def close(self) -> None:
        """See ``ObjectStore.close``."""
        await self._store.close()


class _TimedEntry:
    """A reading: timed until it is open."""

    __slots__ = ("_inner", "_meter")

    def __init__(self, inner: AbstractAsyncContextManager[Reading], meter: StorageMeter) -> None:
        self._inner = inner
        self._meter = meter

    async def __aenter__(self) -> Reading:
        return await _timed(self._meter, _READ, self._inner.__aenter__())

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, exc, trace)


class _TimedExit:
    """A batch: timed while it becomes durable. One whose block failed is not counted."""

    __slots__ = ("_inner", "_meter")

    def __init__(self, inner: AbstractAsyncContextManager[None], meter: StorageMeter) -> None:
        self._inner = inner
        self._meter = meter

    async def __aenter__(self) -> None:
        await self._inner.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if exc is not None:
            return await self._inner.__aexit__(kind, exc, trace)
        return await _timed(self._meter, _SYNC, self._inner.__aexit__(None, None, None))


class _TimedStart:
    """A listing: timed until its first entry, or until it is known to be empty."""

    __slots__ = ("_inner", "_meter", "_started")

    def __init__(self, inner: AsyncIterator[ObjectInfo | CommonPrefix], meter: StorageMeter) -> None:
        self._inner = inner
        self._meter = meter
        self._started = False

    def __aiter__(self) -> _TimedStart:
        return self

    async def __anext__(self) -> ObjectInfo | CommonPrefix:
        if self._started:
            return await self._inner.__anext__()
        self._started = True
        return await _timed(self._meter, _LIST, self._inner.__anext__())

    async def aclose(self) -> None:
        """Ends the listing early, where the one behind it can be ended."""
        if (close := getattr(self._inner, "aclose", None)) is not None:
            await close()
