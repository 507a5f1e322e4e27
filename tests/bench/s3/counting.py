"""A proxy between a registry and its S3 server that counts requests by what they ask of S3.

Law: what comes in goes out, byte for byte, ``Host`` and all, so signatures stay right. It is not there when time is
taken.
"""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from tests.bench.engine import Address

__all__ = ["Counting", "counting"]

_PIECE: Final = 256 * 1024
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)

_BY_QUERY: Final = {
    ("POST", "uploads"): "CreateMultipartUpload",
    ("POST", "uploadId"): "CompleteMultipartUpload",
    ("POST", "delete"): "DeleteObjects",
    ("PUT", "partNumber"): "UploadPart",
    ("GET", "uploads"): "ListMultipartUploads",
    ("GET", "uploadId"): "ListParts",
    ("GET", "list-type"): "ListObjectsV2",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
}
_BY_METHOD: Final = {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}


@dataclass(slots=True)
class Counting:
    """The proxy. ``requests``: how many of each operation went through since it was emptied."""

    endpoint: str
    server: Address
    requests: Counter[str] = field(default_factory=Counter)
    _open: set[socket.socket] = field(default_factory=set)

    def serve(self, listener: socket.socket) -> None:
        """Takes connections until the listener is shut down, and ends them then."""
        threads = []
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                threads.append(threading.Thread(target=self._connect, args=(near,)))
                threads[-1].start()
        for sock in list(self._open):
            _shut(sock)
        for thread in threads:
            thread.join()

    def _connect(self, near: socket.socket) -> None:
        with near, socket.create_connection(self.server) as far:
            self._open |= {near, far}
            answers = threading.Thread(target=_back, args=(far, near))
            answers.start()
            with suppress(OSError):
                self._there(near, far)
            _shut(far)
            answers.join()
            self._open -= {near, far}

    def _there(self, near: socket.socket, far: socket.socket) -> None:
        data = b""
        while True:
            while (end := data.find(b"\r\n\r\n")) < 0:
                more = near.recv(_PIECE)
                if not more:
                    return
                data += more
            head, data = data[: end + 4], data[end + 4 :]
            self.requests[_operation(head)] += 1
            far.sendall(head)
            length = _LENGTH.search(head)
            data = _carry(near, far, data, int(length[1]) if length else 0)


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):  # the other side was first
        sock.shutdown(socket.SHUT_RDWR)


def _carry(near: socket.socket, far: socket.socket, data: bytes, left: int) -> bytes:
    """Hands on a body of ``left`` bytes, of which ``data`` is here; returns what is behind it."""
    while left:
        data = data or near.recv(_PIECE)
        if not data:
            raise OSError
        far.sendall(data[:left])
        data, left = data[left:], left - min(left, len(data))
    return data


def _back(far: socket.socket, near: socket.socket) -> None:
    with suppress(OSError):
        while data := far.recv(_PIECE):
            near.sendall(data)
    _shut(near)


def _operation(head: bytes) -> str:
    method, target = head.split(b" ", 2)[:2]
    query = dict(parse_qsl(urlsplit(target.decode()).query, keep_blank_values=True))
    name = next((name for (verb, key), name in _BY_QUERY.items() if verb == method.decode() and key in query), None)
    if name is None:
        name = _BY_METHOD[method.decode()]
    if b"\r\nx-amz-copy-source:" in head.lower():
        return {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}[name]
    return name


@contextmanager
def counting(server: str) -> Iterator[Counting]:
    """A proxy in front of the S3 server at this URL."""
    place = urlsplit(server)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        proxy = Counting(f"http://127.0.0.1:{listener.getsockname()[1]}", (str(place.hostname), int(place.port or 80)))
        serving = threading.Thread(target=proxy.serve, args=(listener,))
        serving.start()
        try:
            yield proxy
        finally:
            _shut(listener)  # wakes who waits for the next connection
            serving.join()
