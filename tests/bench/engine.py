"""A load generator for what wrk cannot send: HEADs, big bodies and whole pushes. One thread, one epoll.

Law: nothing that grows with a body happens in the timed part. Requests are built and hashed beforehand, bodies are sent
from memory that is already there, and answers are discarded in the kernel (``MSG_TRUNC``), because the generator shares
the machine with the servers. Any answer that was not expected, any closed connection and any stall ends the run: a
figure with errors in it is no figure.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

__all__ = ["Address", "Driven", "Flow", "Request", "Response", "UnexpectedAnswer", "drive"]

Address = tuple[str, int]

STALL = 120.0
"""Seconds without a byte in either direction after which a run is given up: the largest push needs a few."""

_HEAD_LIMIT = 64 * 1024
_SCRATCH = bytearray(4 * 1024 * 1024)
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_LOCATION = re.compile(rb"\r\nlocation: *([^\r\n]+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class UnexpectedAnswer(Exception):
    """The server answered what the flow cannot go on with, or stopped answering."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it goes on the wire. ``expect``: the statuses that are no error; ``bodiless``: answers a HEAD."""

    head: bytes
    body: tuple[memoryview, ...] = ()
    expect: tuple[int, ...] = (200,)
    bodiless: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """What a flow needs to know of an answer."""

    status: int
    location: str


Flow = Generator[Request, Response, None]
"""What one client does on a kept-alive connection: yields a request, is given the answer, ends when it is done."""


@dataclass(slots=True)
class Driven:
    """What a run did: how long each flow took, and all together (seconds), bytes sent and received in bodies."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    requests: int = 0
    sent: int = 0
    received: int = 0


def drive(address: Address, flows: Iterator[Flow], *, concurrency: int, seconds: float | None = None) -> Driven:
    """Runs ``flows`` on ``concurrency`` connections until there are none left or ``seconds`` have passed.

    A flow that was begun is finished; its time counts.

    Raises:
        UnexpectedAnswer: a status that was not expected, a closed connection, or no byte for ``STALL`` seconds.
    """
    driven = Driven()
    with ExitStack() as stack:
        poll = stack.enter_context(select.epoll())
        sockets = [stack.enter_context(_connect(address)) for _ in range(concurrency)]
        began = time.perf_counter()
        deadline = began + seconds if seconds is not None else float("inf")
        busy: dict[int, _Connection] = {}
        for sock in sockets:
            poll.register(sock, select.EPOLLIN)
            connection = _Connection(sock, poll, driven, flows, deadline)
            if connection.next_flow():
                busy[sock.fileno()] = connection
        _loop(poll, busy)
        driven.seconds = time.perf_counter() - began
    return driven


def _connect(address: Address) -> socket.socket:
    sock = socket.create_connection(address, timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


def _loop(poll: select.epoll, busy: dict[int, _Connection]) -> None:
    while busy:
        events = poll.poll(STALL)
        if not events:
            raise UnexpectedAnswer(f"no byte for {STALL:.0f} s, {len(busy)} connections waiting")
        for number, mask in events:
            connection = busy.get(number)
            if connection is None:
                raise UnexpectedAnswer("an idle connection was closed or spoken to by the server")
            if mask & ~select.EPOLLOUT:
                connection.receive()
            elif mask & select.EPOLLOUT:
                connection.transmit()
            if connection.done:
                del busy[number]


class _Connection:
    """One client: a socket, the flow that it is in, and the bytes still to go out or to come in."""

    __slots__ = ("_began", "_deadline", "_driven", "_flow", "_flows", "_inbox", "_out", "_poll", "_remaining",
                 "_request", "_response", "_sock", "done")  # fmt: skip

    def __init__(
        self, sock: socket.socket, poll: select.epoll, driven: Driven, flows: Iterator[Flow], deadline: float
    ) -> None:
        self._sock, self._poll, self._driven, self._flows, self._deadline = sock, poll, driven, flows, deadline
        self._inbox = bytearray()
        self._out: list[memoryview] = []
        self._remaining = -1
        self.done = False

    def next_flow(self) -> bool:
        """Begins the next flow; False when there is none, or the time is over."""
        now = time.perf_counter()
        flow = next(self._flows, None) if now < self._deadline else None
        if flow is None:
            self.done = True
            return False
        self._flow, self._began = flow, now
        self._send(next(flow))
        return True

    def _send(self, request: Request) -> None:
        self._request = request
        self._remaining = -1
        if not request.body:
            # Heads are far smaller than a socket buffer that is empty: nothing else is under way on this connection.
            if self._sock.send(request.head) != len(request.head):
                raise UnexpectedAnswer("a request head did not fit an empty socket buffer")
            return
        self._out = [memoryview(request.head), *request.body]
        self._driven.sent += sum(map(len, request.body))
        self._poll.modify(self._sock, select.EPOLLIN | select.EPOLLOUT)
        self.transmit()

    def transmit(self) -> None:
        """Sends as much as the socket takes."""
        try:
            count = self._sock.sendmsg(self._out)
        except BlockingIOError:
            return
        while count:
            first = self._out[0]
            if count < len(first):
                self._out[0] = first[count:]
                return
            count -= len(first)
            del self._out[0]
        if not self._out:
            self._poll.modify(self._sock, select.EPOLLIN)

    def receive(self) -> None:
        """Takes what has arrived; goes on with the flow when an answer is complete."""
        if self._remaining < 0:
            self._receive_head()
        else:
            self._remaining -= self._discard()
        if self._remaining == 0:
            self._finish()

    def _receive_head(self) -> None:
        data = self._sock.recv(_HEAD_LIMIT)
        if not data:
            raise UnexpectedAnswer(f"connection closed after {self._request.head[:100]!r}")
        self._inbox += data
        end = self._inbox.find(b"\r\n\r\n")
        if end < 0:
            if len(self._inbox) > _HEAD_LIMIT:
                raise UnexpectedAnswer("a response head without an end")
            return
        head, here = bytes(self._inbox[: end + 2]), len(self._inbox) - end - 4
        status = int(head[9:12])
        if status not in self._request.expect:
            raise UnexpectedAnswer(f"{status} for {self._request.head[:200]!r}: {bytes(self._inbox)[-300:]!r}")
        location = _LOCATION.search(head)
        self._response = Response(status, location[1].decode("ascii") if location else "")
        length = 0 if self._request.bodiless or status in (204, 304) else _content_length(head)
        self._driven.received += length
        self._remaining = length - here
        self._inbox.clear()

    def _discard(self) -> int:
        # Linux: with MSG_TRUNC a TCP socket drops the bytes instead of copying them, and says how many.
        count = self._sock.recv_into(_SCRATCH, min(self._remaining, len(_SCRATCH)), socket.MSG_TRUNC)
        if not count:
            raise UnexpectedAnswer(f"connection closed {self._remaining} bytes before the end of a body")
        return count

    def _finish(self) -> None:
        if self._out:
            raise UnexpectedAnswer(f"answered {self._response.status} before the body was sent")
        self._driven.requests += 1
        try:
            request = self._flow.send(self._response)
        except StopIteration:
            self._driven.latencies.append(time.perf_counter() - self._began)
            self.next_flow()
        else:
            self._send(request)


def _content_length(head: bytes) -> int:
    length = _LENGTH.search(head)
    if length is None or _CHUNKED.search(head):
        raise UnexpectedAnswer(f"no Content-Length: {head[:300]!r}")
    return int(length[1])
