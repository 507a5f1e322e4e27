"""A file of the operator's that may change while we run.

Law: what was understood stays in use until something newer is understood. The file is looked at once per second at
most, by its identity, size and time; a new version that is wrong is refused whole, and the log says so once.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from moorage.auth.errors import ConfigurationError

__all__ = ["WatchedFile"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_LARGEST: Final = 1024 * 1024
_LOOK_AFTER: Final = 1.0
"""Seconds for which the file is taken to be what it was."""


class WatchedFile(Generic[_T]):
    """The value that a file stands for, as it is now.

    Args:
        parse: makes the value of the path, the content and the status of the file; raises ConfigurationError.
        clock: seconds, from any moment on.

    Raises:
        ConfigurationError: the file cannot be read or understood.
    """

    def __init__(
        self,
        path: str,
        parse: Callable[[str, bytes, os.stat_result], _T],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._parse, self._clock = parse, clock
        self._seen: tuple[int, ...] = ()
        self._looked = clock()
        self._value = self._read()

    def __repr__(self) -> str:
        return f"<WatchedFile {self.path!r}>"

    def current(self) -> _T:
        """The value; the same object as long as the file is the same. Blocks for a stat, a few microseconds."""
        now = self._clock()
        if not 0 <= now - self._looked < _LOOK_AFTER:
            self._looked = now
            self._look()
        return self._value

    def _look(self) -> None:
        try:
            there = _signature(os.stat(self.path))
        except OSError:
            there = ()
        if there == self._seen:
            return
        self._seen = there  # also where it is refused: it is complained about once
        try:
            self._value = self._read()
        except ConfigurationError as exc:
            _log.error("what %s said before stays in use: %s", self.path, exc)
        else:
            _log.info("%s has changed, and is in use", self.path)

    def _read(self) -> _T:
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                self._seen = _signature(status)
                content = file.read(_LARGEST + 1)
        except OSError as exc:
            raise ConfigurationError(f"cannot read {self.path}: {exc.strerror}") from exc
        if len(content) > _LARGEST:
            raise ConfigurationError(f"{self.path}: larger than {_LARGEST} bytes")
        return self._parse(self.path, content, status)


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
