"""A host that serves one blob and can be as bad as hosts are; it counts every byte that it sends.

Law: real sockets and HTTP/1.1 in threads. A test says per request what is wrong with the answer; the rest is right.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

__all__ = ["FINE", "Asked", "Behaviour", "BlobHost"]

_PIECE = 32 * 1024


@dataclass
class Asked:
    """A request. ``start``: of its range, None without one; ``sent``: bytes of the body that went out."""

    number: int
    path: str
    headers: Mapping[str, str]
    start: int | None
    sent: int = 0


@dataclass(frozen=True)
class Behaviour:
    """What is wrong with an answer.

    ``status``: instead of 200 or 206, with ``body``; ``headers``: added or replaced, None: left out; ``cut``: the
    connection ends after so many bytes; ``hold``: after so many bytes nothing more comes while the client stays;
    ``rate``: bytes per second; ``whole``: a range is ignored; ``before``: called before the answer; ``content``: other
    bytes than the blob's.
    """

    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    cut: int | None = None
    hold: int | None = None
    rate: float | None = None
    whole: bool = False
    content: bytes | None = None
    before: Callable[[], None] = lambda: None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100  # of five, where more come at once, the rest would be tried again after a second


FINE = Behaviour()
Behave = Callable[[Asked], Behaviour]


class BlobHost:
    """Serves ``content`` at every path. Use it as a context manager. ``busiest``: most answers at a time."""

    def __init__(
        self, content: bytes, behave: Behave = lambda asked: FINE, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.content, self.behave = content, behave
        self.asked: list[Asked] = []
        self.lock = threading.Lock()
        self.busy = self.busiest = self.connections = 0
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that leave are the rule
        self.tls = tls
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def sent(self) -> int:
        """Bytes of bodies that went out so far."""
        return sum(asked.sent for asked in self.asked)

    def note(self, path: str, headers: Mapping[str, str], start: int | None) -> Asked:
        """Takes note of a request."""
        with self.lock:
            self.asked.append(Asked(len(self.asked), path, headers, start))
            return self.asked[-1]


def _handler_of(host: BlobHost) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)  # what is sent is soon received
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if host.tls is not None:
                self.request = host.tls.wrap_socket(self.request, server_side=True)
            with host.lock:
                host.connections += 1
            super().setup()

        def finish(self) -> None:
            with contextlib.suppress(OSError):
                super().finish()
            if host.tls is not None:
                self.request.close()  # the server knows only the socket that this one wraps

        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            match = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
            asked = host.note(self.path, headers, int(match[1]) if match else None)
            behaviour = host.behave(asked)
            behaviour.before()
            with host.lock:
                host.busy += 1
                host.busiest = max(host.busy, host.busiest)
            try:
                self._answer(asked, behaviour, int(match[2] or len(host.content) - 1) + 1 if match else None)
            except OSError:
                self.close_connection = True
            finally:
                with host.lock:
                    host.busy -= 1

        do_PUT = do_GET  # noqa: N815 (the base class wants it so)

        def _answer(self, asked: Asked, behaviour: Behaviour, stop: int | None) -> None:
            content = host.content if behaviour.content is None else behaviour.content
            extra: dict[str, str | None] = {}
            status, body = 200, content
            if asked.start is not None and not behaviour.whole:
                status, body = 206, content[asked.start : stop]
                extra["Content-Range"] = f"bytes {asked.start}-{asked.start + len(body) - 1}/{len(content)}"
            if behaviour.status is not None:
                status, body = behaviour.status, behaviour.body
            extra = {"Content-Length": str(len(body)), **extra, **behaviour.headers}
            self.send_response(status)
            for name, value in extra.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            self._send(asked, body[: behaviour.hold if behaviour.cut is None else behaviour.cut], behaviour.rate)
            if behaviour.hold is not None:
                self.request.recv(1)  # a client that waits sends nothing: this returns when it leaves
                self.close_connection = True
            if behaviour.cut is not None or extra["Content-Length"] is None:
                self.close_connection = True

        def _send(self, asked: Asked, body: bytes, rate: float | None) -> None:
            began = time.monotonic()
            piece = _PIECE if rate is None else max(1, min(_PIECE, int(rate / 20)))
            for start in range(0, len(body), piece):
                self.wfile.write(body[start : start + piece])
                asked.sent += len(body[start : start + piece])
                if rate is not None:
                    time.sleep(max(0.0, began + asked.sent / rate - time.monotonic()))

    return Handler
