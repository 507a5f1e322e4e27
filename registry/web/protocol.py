"""One client connection: HTTP/1.1 parsed by httptools, and every limit that keeps a client from hurting others.

uvicorn has no limit on heads, no deadline but for idle connections, and answers what RFC 9112 forbids (rules A12, A13),
so this protocol takes the place of its own; the uvicorn ``Server`` around it stays. Law of time: a connection carries
one deadline, set when its phase changes; a sweep every 100 ms expires those that are over. That is tighter than a timer
per request and cheaper: nothing is scheduled or cancelled while requests flow.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import ClassVar, cast
from urllib.parse import unquote

import httptools
from moorage.registry.web.connections import State, untaken
from moorage.registry.web.exchange import App, Exchange, last_answer
from moorage.registry.web.head import CHUNK_OVERHEAD, MAX_REQUEST_LINE, Refused, not_http, parse_head, too_much
from moorage.registry.web.sendfile import EXTENSIONS, FileSender

__all__ = ["Connection"]

MAX_BUFFERED = 512 * 1024
"""Bytes of a body that wait for the app before reading pauses: one read of the loop (256 KiB) while another is used."""

_NEVER = math.inf
_log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """A connection from its first byte to its last. The class attributes are seconds; tests shorten them."""

    head_deadline: ClassVar[float] = 10
    idle_deadline: ClassVar[float] = 30
    body_window: ClassVar[float] = 30
    body_rate: ClassVar[float] = 1024  # bytes per second, averaged over a window
    write_stall: ClassVar[float] = 30
    linger: ClassVar[float] = 2  # how long we go on reading for nothing, so that a reset does not eat our last answer

    def __init__(self, app: App, state: State, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.deadline = _NEVER
        self.write_paused = False
        self._app = app
        self._state = state
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._current: Exchange | None = None  # the one being answered
        self._newest: Exchange | None = None  # the one being received; behind the current one when pipelined
        self._queue: deque[Exchange] = deque()
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._in_head = True
        self._deaf = False  # what still arrives is dropped
        self._suspect: Exchange | None = None  # the first one in chunks of those that the last bytes belong to
        self._refusal: Refused | None = None  # said once the requests before it are answered
        self._read_paused = False
        self._drained = asyncio.Event()
        self._files: FileSender | None = None
        self._on_wire = self._explained = 0  # bytes since the connection was last idle
        self._received = self._written = self._mark = 0

    @property
    def date_line(self) -> bytes:
        """The Date header of this second."""
        return self._state.date_line

    # -- asyncio -------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection, or refuses it when there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        # A client that has left already has no address any more.
        peer, local = (transport.get_extra_info(name) or ("", 0) for name in ("peername", "sockname"))
        self._secure = transport.get_extra_info("sslcontext") is not None
        self._address = str(peer[0])
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "client": (self._address, int(peer[1])),
            "server": (str(local[0]), int(local[1])),
            "scheme": "https" if self._secure else "http",
            "root_path": "",
            "extensions": {} if self._secure else EXTENSIONS,
        }
        self.deadline = self.loop.time() + self.head_deadline
        refused = self._state.enter(self, self._address)
        if refused is not None:
            self._refuse(refused)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells whoever waits that the client has gone."""
        self._state.leave(self, self._address)
        self._deaf, self.deadline, self.write_paused = True, _NEVER, False
        self._queue.clear()
        for exchange in (self._current, self._newest):
            if exchange is not None:
                exchange.lose()
        if self._files is not None:
            self._files.close()
        self._drained.set()
        del self._parser  # breaks the cycle between parser and protocol

    def eof_received(self) -> bool:
        """The client will send no more; what it asked for completely is still answered."""
        newest, was_deaf, self._deaf = self._newest, self._deaf, True
        if self._secure or was_deaf or newest is None or newest.finished or not newest.body_complete:
            return False
        newest.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        """Feeds the parser; the callbacks below do the work."""
        if self._deaf:
            return
        if not self._on_wire:
            self.deadline = self.loop.time() + self.head_deadline
        self._on_wire += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # answered as a plain request, after which the connection closes; see on_headers_complete
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, Refused):
                raise
            self._refuse(error.__context__)
        except httptools.HttpParserError as error:
            if not self._deaf:
                self._refuse(not_http(error))
        else:
            refused = too_much(self._on_wire - self._explained, in_head=self._in_head)
            if refused is not None:
                self._refuse(refused, culprit=self._suspect)
            newest = self._newest
            self._suspect = newest if newest is not None and not newest.body_complete else None

    def pause_writing(self) -> None:
        """The client takes less than we send."""
        self.write_paused = True
        self._drained.clear()
        self._watch_writes()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.write_paused = False
        self._drained.set()
        if self._current is not None and self._current.finished:
            self._rest()
        else:
            self.watch_body()

    # -- httptools -----------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._url = b""
        self._headers = []
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._url += url
        if len(self._url) > MAX_REQUEST_LINE:
            raise Refused(414, "line_too_long", "request line is longer than 8 KiB")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line; trailers are dropped."""
        if self._in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete: checks it and lets the app begin."""
        parser = self._parser
        method, version = parser.get_method().decode("ascii"), parser.get_http_version()
        target = parse_head(method, self._url, version, self._headers)
        self._in_head = False
        self._explained += target.size
        upgrade = parser.should_upgrade()
        if upgrade and (method == "CONNECT" or target.has_body):
            # The parser stops reading the body of such a request, so it could only be mistaken for an empty one.
            raise Refused(400, "bad_framing", "this server upgrades to nothing")
        path = target.path.decode("ascii")
        scope = {
            **self._scope,
            "http_version": version,
            "headers": self._headers,
            "state": {},
            "method": method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": target.path,
            "query_string": target.query,
        }
        keep_alive = version == "1.1" and not upgrade and parser.should_keep_alive()
        exchange = Exchange(self, scope, keep_alive=keep_alive, expects_continue=target.expects_continue)
        if target.chunked and self._suspect is None:
            self._suspect = exchange
        self._begin(exchange)

    def _begin(self, exchange: Exchange) -> None:
        self._newest = exchange
        if self._current is None or self._current.finished:
            self._start(exchange)
            self.watch_body()
        else:
            self._queue.append(exchange)
            self._pause_reading()

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._explained += CHUNK_OVERHEAD

    def on_body(self, body: bytes) -> None:
        """Bytes of the body."""
        newest = cast(Exchange, self._newest)
        self._received += len(body)
        self._explained += len(body)
        newest.feed(body)
        if newest.buffered > MAX_BUFFERED:
            self._pause_reading()

    def on_message_complete(self) -> None:
        """The request is complete."""
        newest = cast(Exchange, self._newest)
        newest.feed_end()
        if not newest.keep_alive:
            self._deaf = True  # RFC 9112 9.6: what follows a last request is not looked at
        if newest.finished:  # answered before its body ended; the rest was read for nothing
            self._rest()
        elif not self.write_paused:
            self.deadline = _NEVER

    # -- the exchange's side -------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Queues bytes for the client."""
        self._written += len(data)
        self._transport.write(data)

    async def writable(self) -> None:
        """Waits until the client has taken most of what is queued, or has gone."""
        while self.write_paused:
            await self._drained.wait()

    async def send_file(self, file: int, offset: int, count: int) -> None:
        """Has the kernel send bytes of a file, behind what is queued; ends early when the client has gone."""
        self._files = self._files or FileSender(self, self._transport)
        async for sent in self._files.send(file, offset, offset + count):
            self._written += sent

    def body_taken(self) -> None:
        """The app took what was buffered of the body."""
        if not self._queue:
            self._resume_reading()

    def answered(self, *, keep_alive: bool) -> None:
        """The current exchange is answered: goes on with the next one, or rests, or closes."""
        self._state.total_requests += 1
        if not keep_alive and self._newest is not None and not self._newest.body_complete:
            self._linger()
        elif not keep_alive:
            self._close()
        elif self._queue:
            self._start(self._queue.popleft())
            if not self._queue and not cast(Exchange, self._current).body_complete:
                self._resume_reading()
        elif self._refusal is not None:
            self._refuse(self._refusal)
        else:
            self._resume_reading()
            self._rest()

    def abort(self) -> None:
        """Cuts the connection so that the client cannot mistake the answer for a whole one."""
        self._deaf = True
        self._transport.abort()

    def shutdown(self) -> None:
        """Called by the server when it stops: closes as soon as what was asked for is answered."""
        if self._current is None or self._current.finished:
            self._close()
        elif self._newest is not None:
            self._newest.keep_alive = False

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        task = self.loop.create_task(exchange.run(self._app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    # -- refusing and closing ------------------------------------------------------------------------------------------

    def _refuse(self, refused: Refused, *, culprit: Exchange | None = None) -> None:
        """Answers with the refusal and closes, once everything that came before is answered.

        Args:
            culprit: the request whose body is what is wrong; without it the newest one, if its body is open.
        """
        self._deaf = True
        current, newest = self._current, self._newest
        if culprit is None and newest is not None and not newest.body_complete:
            culprit = newest
        if culprit is not None and not culprit.finished:
            culprit.spoil()
            before = self._queue.index(culprit) if culprit in self._queue else 0
            self._queue = deque(list(self._queue)[:before])
        if current is not None and not current.finished and not current.gone:
            self._refusal = refused
            return
        self._state.meter.refused(refused.reason)
        _log.debug("refused %s: %s", self._address, refused.message)
        if current is not None and current.gone and current.started:
            self.abort()
            return
        retry = b"retry-after: 1\r\n" if refused.status in (429, 503) else b""
        code = "TOOMANYREQUESTS" if refused.status == 429 else "REQUEST_INVALID"
        self.write(last_answer(refused.status, code, refused.message, headers=self.date_line + retry))
        self._linger()

    def _close(self) -> None:
        """Closes when the client has taken what is queued, for which it has as long as it goes on taking."""
        self._deaf = True
        self._transport.close()
        self._watch_writes()

    def _linger(self) -> None:
        """Says that we are done, and reads for nothing a little while: closing at once would reset the connection."""
        self._deaf = True
        if self._secure or self._transport.is_closing():
            self._close()
            return
        self._resume_reading()
        self._transport.write_eof()
        self.deadline = self.loop.time() + self.linger

    # -- time ----------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """The deadline is over: judges by the phase."""
        if self.write_paused or self._transport.is_closing():
            if self._acknowledged() == self._mark:
                self._state.meter.refused("write_stall")
                self.abort()
            else:
                self._watch_writes()
        elif self._deaf:
            self._close()
        elif self._current is not None and not self._current.finished:
            if self._received - self._mark < self.body_rate * self.body_window:
                self._refuse(Refused(408, "body_timeout", "the body of the request came too slowly"))
            else:
                self.watch_body()
        elif self._in_head and self._on_wire:
            self._refuse(Refused(408, "head_timeout", "the head of the request took too long"))
        else:
            self._close()

    def watch_body(self) -> None:
        """Starts a window for the body, where one is being received and it is the client that we wait for."""
        current = self._current
        if current is None or current.finished:
            return
        awaited = not (
            current.body_complete or current.expects_continue or self._read_paused or current is not self._newest
        )
        self._mark = self._received
        self.deadline = self.loop.time() + self.body_window if awaited else _NEVER

    def _watch_writes(self) -> None:
        self._mark = self._acknowledged()
        self.deadline = self.loop.time() + self.write_stall

    def _acknowledged(self) -> int:
        return self._written - untaken(self._transport)

    def _rest(self) -> None:
        """Nothing is being answered: waits for the rest of a body, of a head, or for the next request."""
        is_body_open = self._newest is not None and not self._newest.body_complete
        if not is_body_open and not self._in_head:
            self._on_wire = self._explained = 0
        self.deadline = self.loop.time() + (self.head_deadline if self._in_head else self.idle_deadline)

    def _pause_reading(self) -> None:
        if not self._read_paused and not self._transport.is_closing():
            self._read_paused = True
            self._transport.pause_reading()
            if not self.write_paused:
                self.deadline = _NEVER

    def _resume_reading(self) -> None:
        if self._read_paused and not self._transport.is_closing():
            self._read_paused = False
            self._transport.resume_reading()
            self.watch_body()
