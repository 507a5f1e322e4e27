"""What authentication keeps, in the store that holds everything else: ``auth/<name>``.

Law: no error of the store crosses into ``moorage.auth``; whatever goes wrong there means that nothing is allowed now.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from moorage.auth.errors import StateConflict, StateReadOnly, StateUnavailable
from moorage.auth.state import Stored
from moorage.storage_backends.base import ABSENT, CommonPrefix, ObjectStore, read_all
from moorage.storage_backends.errors import Conflict, KeyNotFound, StorageError

__all__ = ["StoredState"]

_KEYS: Final = "auth/"


class StoredState:
    """The ``State`` port of ``moorage.auth`` over an object store: seen by every worker and replica at once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def read(self, name: str) -> Stored | None:
        """The value, or None where there is none."""
        with _border():
            try:
                value, info = await read_all(self._store, _KEYS + name)
            except KeyNotFound:
                return None
            return Stored(value, info.version)

    async def write(self, name: str, value: bytes, *, expect: str | None) -> str:
        """Stores ``value``, durably, and returns its version.

        Raises:
            StateConflict: ``expect`` is not what is there.
            StateReadOnly: the store takes no writes.
        """
        if not self._store.capabilities.writable:
            raise StateReadOnly("the store of accounts and tokens can only be read")
        with _border():
            return await self._store.put(_KEYS + name, value, expect=ABSENT if expect is None else expect)

    async def delete(self, name: str) -> None:
        """Removes the value. Idempotent."""
        with _border():
            await self._store.delete(_KEYS + name)

    async def names(self, prefix: str) -> AsyncIterator[str]:
        """The names that begin with ``prefix``, in order."""
        with _border():
            async for found in self._store.list(_KEYS + prefix):
                if not isinstance(found, CommonPrefix):
                    yield found.key.removeprefix(_KEYS)


@contextmanager
def _border() -> Iterator[None]:
    try:
        yield
    except Conflict as exc:
        raise StateConflict("the value has changed meanwhile") from exc
    except StorageError as exc:
        raise StateUnavailable(f"the store of accounts and tokens cannot be used now: {exc}") from exc
