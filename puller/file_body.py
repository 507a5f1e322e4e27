"""Bytes of a file as the body of a request, sent by the kernel where nothing is encrypted.

Law: each sending opens the file anew and closes it, so it may run in a thread that outlives whoever asked for it, and
may be repeated. It is measured in what the socket took, never in what was read.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
from collections.abc import Callable

from moorage.puller.errors import ImageError
from moorage.registry.oci import SizeInvalid
from moorage.registry.oci.values import dataclass

__all__ = ["FileBody", "FileSpan"]

_PIECE = 1024 * 1024
_STALL = 60.0
"""Seconds in which a connection must take at least one byte; the same patience as for reading."""


@dataclass(frozen=True, slots=True)
class FileSpan:
    """Bytes ``start`` up to, not including, ``stop`` of the file at ``path``."""

    path: str
    start: int
    stop: int

    def cut(self, start: int, stop: int) -> FileSpan:
        """Bytes ``start`` to ``stop`` of this span."""
        return FileSpan(self.path, self.start + start, min(self.start + stop, self.stop))


class FileBody:
    """A span of a file to be sent (``messages.SpanBody``). ``on_sent``: takes each count of bytes sent, there."""

    def __init__(self, span: FileSpan, on_sent: Callable[[int], None]) -> None:
        self._span = span
        self._on_sent = on_sent

    @property
    def size(self) -> int:
        """Bytes to send."""
        return self._span.stop - self._span.start

    def send_to(self, connection: socket.socket) -> None:
        """Sends the span, from its start; stops early where the other side already answers.

        Raises:
            OSError: the connection broke or stalled.
            SizeInvalid: the file is shorter than the span.
            ImageError: the file cannot be read, which is no fault of the connection's.
        """
        try:
            file = os.open(self._span.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            raise ImageError(f"{self._span.path}: {exc.strerror}") from exc
        try:
            if isinstance(connection, ssl.SSLSocket):
                self._send_through_memory(file, connection)
            else:
                self._send_by_kernel(file, connection)
        finally:
            os.close(file)

    def _send_by_kernel(self, file: int, connection: socket.socket) -> None:
        position, poll = self._span.start, select.poll()
        poll.register(connection, select.POLLIN | select.POLLOUT)
        while position < self._span.stop:
            events = poll.poll(_STALL * 1000)
            if not events:
                raise TimeoutError("the connection takes no more bytes")
            if events[0][1] & select.POLLIN:  # nothing is expected but the answer to what we still send
                return
            try:
                sent = os.sendfile(connection.fileno(), file, position, min(self._span.stop - position, 2**30))
            except BlockingIOError:
                continue
            if sent == 0:
                raise self._too_short(position)
            position += sent
            self._on_sent(sent)

    def _send_through_memory(self, file: int, connection: socket.socket) -> None:
        position = self._span.start
        while position < self._span.stop:
            piece = os.pread(file, min(_PIECE, self._span.stop - position), position)
            if not piece:
                raise self._too_short(position)
            connection.sendall(piece)
            position += len(piece)
            self._on_sent(len(piece))

    def _too_short(self, position: int) -> SizeInvalid:
        return SizeInvalid(f"{self._span.path} ends at byte {position}, {self._span.stop - position} are missing")
