"""Requests over http.client in threads: cheap to load, and the fastest way to bulk bytes that Python has.

Law: a connection belongs to one request at a time and to one origin for good. Nothing waits for ever: connecting, the
headers and every interval of the body have their limits, and whoever is cancelled closes the socket, which ends the
thread. A connection goes back to the pool only if its answer was read to the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit

from moorage.puller.errors import BadAnswer
from moorage.puller.messages import Request, SendFailure, Sink, SpanBody, Timeouts
from moorage.puller.origins import Origin, is_public, redact
from moorage.puller.route import FindRoute, Route
from moorage.puller.threads import in_thread

__all__ = ["PlainSender"]

_MAX_IDLE = 32
_IDLE_SECONDS = 50.0  # most servers and load balancers keep a connection for 60 s
_BUFFER = 1024 * 1024
_FLUSH_SECONDS = 0.25
_READABLE = "!#$%&'()*+,/:;=?@[]~"  # what quote() leaves alone in a URL that is one already
_Broken = (OSError, HTTPException)


class PlainSender:
    """Keeps connections alive and sends over them. ``trust``: gives the context of those who trust the system."""

    def __init__(
        self,
        *,
        route: FindRoute,
        timeouts: Timeouts,
        headers: Mapping[str, str],
        trust: Callable[[], ssl.SSLContext],
    ) -> None:
        self._find_route, self._timeouts, self._headers, self._trust = route, timeouts, headers, trust
        self._idle: dict[Origin, list[_Connection]] = {}

    async def send(self, request: Request) -> PlainResponse:
        """The answer's head; its body is still to come.

        Raises:
            SendFailure: there was none.
            BadAnswer: the URL is none.
        """
        origin = Origin.of(request.url)
        while (connection := self._take(origin)) is not None:
            try:
                return await self._ask(connection, request)
            except SendFailure as exc:
                # Most likely the registry closed it while it was idle, which says nothing about the registry.
                if exc.is_stall or not (request.idempotent and request.is_replayable):
                    raise
        return await self._ask(_Connection(origin, self._find_route(origin), self._timeouts, self._trust), request)

    def close(self) -> None:
        """Closes every idle connection."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def _ask(self, connection: _Connection, request: Request) -> PlainResponse:
        connection.begin()
        asking = asyncio.ensure_future(in_thread(partial(connection.ask, request, self._headers)))
        try:
            while not asking.done():
                await asyncio.wait({asking}, timeout=min(connection.time_left(), 0.25))
            return PlainResponse(connection, asking.result(), request.url, self._keep)
        except BaseException:
            connection.abort()
            asking.cancel()
            raise

    def _take(self, origin: Origin) -> _Connection | None:
        idle = self._idle.get(origin, [])
        while idle:
            connection = idle.pop()
            if connection.is_fresh:
                return connection
            connection.close()
        return None

    def _keep(self, connection: _Connection) -> None:
        idle = self._idle.setdefault(connection.origin, [])
        if len(idle) < _MAX_IDLE:
            connection.idle_since = time.monotonic()
            idle.append(connection)
        else:
            connection.close()


class PlainResponse:
    """See ``messages.Response``."""

    def __init__(
        self, connection: _Connection, response: HTTPResponse, url: str, keep: Callable[[_Connection], None]
    ) -> None:
        self._connection, self._response, self._keep = connection, response, keep
        self._left = response.length
        self._is_done = response.length == 0
        self.status = response.status
        self.url = url

    def header_lines(self, name: str) -> list[str]:
        """See ``Response``."""
        return self._response.headers.get_all(name) or []

    async def chunks(self) -> AsyncIterator[bytes]:
        """See ``Response``."""
        buffer = memoryview(bytearray(_BUFFER))
        while size := await self._in_thread(partial(self._read, buffer)):
            yield bytes(buffer[:size])

    async def pour(self, sink: Sink) -> None:
        """See ``Response``. When this returns or raises, ``sink`` will not be called any more."""
        await self._in_thread(partial(self._pour, sink))

    async def close(self) -> None:
        """See ``Response``."""
        self._response.close()
        if self._is_done and not self._response.will_close:
            self._keep(self._connection)
        else:
            self._connection.close()

    async def _in_thread(self, work: Callable[[], int]) -> int:
        """Done in a thread; a cancelled one is ended and waited for."""
        working = asyncio.ensure_future(in_thread(work))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            self._connection.shut()
            await asyncio.wait({working})
            working.cancelled() or working.exception()  # taken note of; the cancellation is the news
            raise

    def _pour(self, sink: Sink) -> int:
        buffer, filled, flushed = memoryview(bytearray(_BUFFER)), 0, time.monotonic()
        pace = _Pace(self._connection.timeouts)
        try:
            while size := self._read(buffer[filled:]):
                filled, now = filled + size, time.monotonic()
                pace.note(size, now)
                if filled == _BUFFER or now - flushed > _FLUSH_SECONDS:
                    piece, filled, flushed = buffer[:filled], 0, now
                    if not sink(piece):
                        break
        finally:
            if filled:  # what came before a failure is worth as much as the rest
                sink(buffer[:filled])
        return 0

    def _read(self, buffer: memoryview) -> int:
        """One read of the socket into the buffer; 0 at the end of the body."""
        if self._is_done:
            return 0
        try:
            size = self._read_some(buffer)
        except TimeoutError:
            seconds = self._connection.timeouts.stall
            raise SendFailure(f"stalled: nothing came for {seconds:g} seconds", is_stall=True) from None
        except (*_Broken, ValueError) as exc:
            raise SendFailure(_reason(exc)) from exc
        if self._left is not None:
            if not size:
                raise SendFailure(f"the connection was closed {self._left} bytes before the end")
            self._left -= size
        self._is_done = self._left == 0 or not size
        return size

    def _read_some(self, buffer: memoryview) -> int:
        if self._left is None:
            piece = self._response.read1(len(buffer))
            buffer[: len(piece)] = piece
            return len(piece)
        # Straight from the socket into the buffer: http.client's own readinto would wait until the buffer is full.
        return self._response.fp.readinto1(buffer[: min(self._left, len(buffer))])


class _Pace:
    """Says when a body has stalled: too few bytes in a whole interval."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._began, self._size = time.monotonic(), 0

    def note(self, size: int, now: float) -> None:
        """Takes note of bytes that came.

        Raises:
            SendFailure: there were too few of them for a whole interval.
        """
        self._size += size
        if now - self._began >= self._timeouts.stall:
            if self._size < self._timeouts.stall_size:
                raise SendFailure(f"stalled: {self._size} bytes in {now - self._began:.0f} seconds", is_stall=True)
            self._began, self._size = now, 0


class _Connection:
    """One connection to an origin. Its blocking methods run in one thread at a time; ``abort`` comes from any other."""

    def __init__(self, origin: Origin, route: Route, timeouts: Timeouts, trust: Callable[[], ssl.SSLContext]) -> None:
        self.origin, self.timeouts = origin, timeouts
        self.idle_since = 0.0
        self.deadline = 0.0
        self._route, self._trust = route, trust
        self._http: HTTPConnection | None = None
        self._sock: socket.socket | None = None  # http.client forgets its own where the answer ends the connection
        self._is_aborted = self._is_asking = False
        self._state = threading.Lock()

    @property
    def is_fresh(self) -> bool:
        """Whether an idle connection can be expected to take another request."""
        sock = self._http.sock if self._http else None
        if sock is None or time.monotonic() - self.idle_since > _IDLE_SECONDS:
            return False
        poll = select.poll()  # select() knows no descriptor above 1023
        poll.register(sock, select.POLLIN)
        return not poll.poll(0)  # readable while idle: closed, or about to be

    def time_left(self) -> float:
        """Seconds until the answer must have come.

        Raises:
            SendFailure: none are left.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise SendFailure("the answer did not come in time", is_stall=True)
        return left

    def ask(self, request: Request, defaults: Mapping[str, str]) -> HTTPResponse:
        """Sends the request; returns when the answer's headers have come.

        Raises:
            SendFailure: it could not be sent, or there was no answer.
            BadAnswer: the URL cannot be sent.
        """
        try:
            return self._ask(request, defaults)
        except BaseException:
            self.close()
            raise
        finally:
            with self._state:
                self._is_asking = False
                if self._is_aborted:  # nobody waits any more; who aborted could only shut the socket
                    self.close()

    def begin(self) -> None:
        """A thread is about to ``ask``."""
        self._is_asking = True
        self.deadline = time.monotonic() + self.timeouts.connect + self.timeouts.answer

    def abort(self) -> None:
        """Ends asking; the connection is closed by whoever is the last to use it."""
        with self._state:
            self._is_aborted = True
            self.shut()
            if not self._is_asking:
                self.close()

    def shut(self) -> None:
        """Ends what a thread reads or writes here."""
        sock = self._sock or (self._http.sock if self._http else None)
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not SSLSocket's, which disturbs the reading thread

    def close(self) -> None:
        """Closes it; no thread may be using it."""
        if self._http is not None:
            self._http.close()

    def _ask(self, request: Request, defaults: Mapping[str, str]) -> HTTPResponse:
        http = self._connected()
        self._sock = sock = http.sock
        if request.is_guarded and self._route.proxy is None and not is_public(sock.getpeername()[0]):
            raise BadAnswer(f"{redact(request.url)}: is at an address of this network")  # nothing was sent yet
        # A body may take as long as it moves: every write has its own limit.
        self.deadline = float("inf") if isinstance(request.body, SpanBody) else self._answer_deadline(request)
        failure = self._send(http, request, defaults)
        self.deadline = self._answer_deadline(request)
        sock.settimeout(max(self.deadline - time.monotonic(), 0.001))  # none left: it has come, or it is too late
        try:
            response = http.getresponse()
        except _Broken as exc:
            raise SendFailure(_reason(failure or exc)) from exc
        with contextlib.suppress(OSError):  # closed where the answer has no body
            sock.settimeout(self.timeouts.stall)
        # An answer before the body's end leaves a connection in which nobody knows where the next request begins.
        is_early = failure is not None or (isinstance(request.body, SpanBody) and response.status >= 400)
        if is_early or response.status < 200:
            response.will_close = True
        return response

    def _answer_deadline(self, request: Request) -> float:
        is_read = request.method in ("GET", "HEAD")
        return time.monotonic() + (self.timeouts.answer if is_read else self.timeouts.work)

    def _connected(self) -> HTTPConnection:
        if self._http is not None:
            return self._http
        try:
            self._http = self._make()
            if self.origin.scheme == "http":
                self._http.sock = self._connect_plainly(self._http)
            else:
                self._http.connect()
        except _Broken as exc:
            self.close()
            raise SendFailure(f"{_reason(exc)}{self._route.said}", was_sent=False) from exc
        if self._is_aborted:
            self.close()
            raise SendFailure("cancelled", was_sent=False)
        self._http.sock.settimeout(self.timeouts.stall)
        return self._http

    def _connect_plainly(self, http: HTTPConnection) -> socket.socket:
        """What ``http.connect`` does; a host given as bytes is looked up without loading the tables of IDNA (1 ms)."""
        there: Any = (http.host.encode(), http.port)  # getaddrinfo takes bytes, which typeshed does not know
        sock = socket.create_connection(there, self.timeouts.connect)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _make(self) -> HTTPConnection:
        proxy = self._route.proxy
        hop = proxy.origin if proxy else self.origin
        if self.origin.scheme == "http":
            return HTTPConnection(hop.host, hop.port, timeout=self.timeouts.connect)
        context = self._route.tls or self._trust()
        http = HTTPSConnection(hop.host, hop.port, timeout=self.timeouts.connect, context=context)
        if proxy:
            headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
            http.set_tunnel(self.origin.host, self.origin.port, headers)
        return http

    def _send(self, http: HTTPConnection, request: Request, defaults: Mapping[str, str]) -> OSError | None:
        """Sends all of it. A failure in the middle of the body is returned: the registry may have answered before."""
        body = request.body if isinstance(request.body, bytes | SpanBody) else None
        if body is None and request.method in ("POST", "PUT", "PATCH"):
            body = b""  # said aloud: some registries answer 411 to a request that says no length
        try:
            http.putrequest(request.method, self._target(request.url), skip_accept_encoding=True)
            for name, value in self._headers(request, defaults, body).items():
                http.putheader(name, value)
            http.endheaders(body if isinstance(body, bytes) and body else None)
        except (HTTPException, UnicodeError, ValueError) as exc:
            raise BadAnswer(f"{redact(request.url)}: {exc}") from None
        except OSError as exc:
            return exc
        try:
            if isinstance(body, SpanBody):
                body.send_to(http.sock)
        except OSError as exc:
            return exc
        return None

    def _headers(
        self, request: Request, defaults: Mapping[str, str], body: bytes | SpanBody | None
    ) -> Mapping[str, str]:
        headers = {**defaults, **request.headers}
        if body is not None:
            headers["Content-Length"] = str(len(body) if isinstance(body, bytes) else body.size)
        proxy = self._route.proxy
        if proxy and proxy.authorization and self.origin.scheme == "http":
            headers["Proxy-Authorization"] = proxy.authorization
        return headers

    def _target(self, url: str) -> str:
        """What the request line names: path and query, or all of the URL where a proxy must know it."""
        parts = urlsplit(url)
        target = quote(parts.path or "/", safe=_READABLE) + (
            f"?{quote(parts.query, safe=_READABLE)}" if parts.query else ""
        )
        is_for_proxy = self._route.proxy is not None and self.origin.scheme == "http"
        return f"{self.origin}{target}" if is_for_proxy else target


def _reason(exc: BaseException) -> str:
    if isinstance(exc, TimeoutError) and not exc.args[1:]:
        return "timed out"
    return str(exc) or type(exc).__name__
