"""The border between the storage port's errors and the protocol's.

Law: no ``StorageError`` leaves a ``LocalRegistry``. What the store cannot do now is ``Unavailable``, what it has no
room for is ``StorageFull``; anything else is a mistake of ours.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Final

from moorage.registry.oci import InternalError, OciError, StorageFull, Unavailable
from moorage.storage_backends import errors as storage

__all__ = ["refusals"]

_log = logging.getLogger(__name__)


class _Border:
    """A context manager without state, so that all methods share one: 0.1 µs."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, storage.StorageError):
            raise _refusal(error) from error


refusals: Final = _Border()
"""``with refusals:`` lets the protocol's errors pass and turns every ``StorageError`` into one of them."""


def _refusal(error: storage.StorageError) -> OciError:
    match error:
        case storage.StorageUnavailable():
            _log.warning("storage is unavailable: %s", error)
            return Unavailable()
        case storage.StorageFull():
            _log.warning("storage is full: %s", error)
            return StorageFull()
        case _:
            _log.error("the store was asked for something impossible", exc_info=error)
            return InternalError()
