"""One client, one request after the other, on kept-alive connections; redirects are followed, as clients do.

Law: nothing that grows with a body happens here but the kernel's work: bodies are sent from memory that is already
there, answers are discarded unread (``MSG_TRUNC``), because the client shares the machine with the servers.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from tests.bench.engine import Address, Flow, Request, Response, UnexpectedAnswer
from tests.bench.flows import request_head

__all__ = ["Client"]

_PATIENCE: Final = 120.0
_SCRATCH: Final = bytearray(4 * 1024 * 1024)
_HEAD_LIMIT: Final = 64 * 1024
_FIELD = re.compile(rb"\r\n([A-Za-z-]+): *([^\r\n]*)")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came. ``body`` is empty where it was discarded; ``size`` its bytes."""

    status: int
    fields: dict[str, str]
    size: int
    body: bytes = b""

    @property
    def location(self) -> str:
        """Where to go on."""
        return self.fields.get("location", "")


@dataclass(slots=True)
class Client:
    """Speaks to a registry, and to whatever that redirects to. Use it as a context manager."""

    address: Address
    redirects: int = 0
    _connections: dict[Address, socket.socket] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in self._connections.values():
            sock.close()

    def run(self, flow: Flow) -> None:
        """Goes through a flow.

        Raises:
            UnexpectedAnswer: a status that the flow cannot go on with.
        """
        answer: Answer | None = None
        while True:
            try:
                request = next(flow) if answer is None else flow.send(Response(answer.status, answer.location))
            except StopIteration:
                return
            answer = self._ask(self.address, request)

    def get(self, target: str, *, keep: bool = False) -> Answer:
        """GETs ``target``, at another place if the registry says so.

        Args:
            keep: whether the body is wanted.

        Raises:
            UnexpectedAnswer: neither 200 nor a redirect that ends there.
        """
        answer = self._ask(self.address, Request(request_head("GET", target), expect=(200, 307)), keep=keep)
        if answer.status == 307:
            self.redirects += 1
            place = urlsplit(answer.location)
            there = (str(place.hostname), int(place.port or 80))
            head = f"GET {place.path}?{place.query} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode()
            answer = self._ask(there, Request(head), keep=keep)
        return answer

    def _ask(self, address: Address, request: Request, *, keep: bool = False) -> Answer:
        sock = self._connections.get(address)
        if sock is None:
            sock = self._connections[address] = socket.create_connection(address, timeout=_PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(request.head)
        for part in request.body:
            sock.sendall(part)
        answer = _receive(sock, bodiless=request.bodiless, keep=keep)
        if answer.status not in request.expect:
            raise UnexpectedAnswer(f"{answer.status} for {request.head[:300]!r}")
        return answer


def _receive(sock: socket.socket, *, bodiless: bool, keep: bool) -> Answer:
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        more = sock.recv(_HEAD_LIMIT)
        if not more or len(data) > _HEAD_LIMIT:
            raise UnexpectedAnswer(f"no answer, but {bytes(data[:300])!r}")
        data += more
    fields = {name.decode().lower(): value.decode() for name, value in _FIELD.findall(data[: end + 2])}
    status, here = int(data[9:12]), data[end + 4 :]
    if bodiless or status == 204:
        return Answer(status, fields, 0)
    if "chunked" in fields.get("transfer-encoding", ""):
        return Answer(status, fields, *_chunked(sock, here))
    size = int(fields["content-length"])
    if keep:
        while len(here) < size:
            here += _some(sock, size - len(here))
        return Answer(status, fields, size, bytes(here))
    left = size - len(here)
    while left:
        count = sock.recv_into(_SCRATCH, min(left, len(_SCRATCH)), socket.MSG_TRUNC)
        if not count:
            raise UnexpectedAnswer(f"connection closed {left} bytes before the end of a body")
        left -= count
    return Answer(status, fields, size)


def _chunked(sock: socket.socket, data: bytearray) -> tuple[int, bytes]:
    """A body in chunks, as Go sends small ones of unknown length."""
    body = bytearray()
    while True:
        while (end := data.find(b"\r\n")) < 0:
            data += _some(sock, _HEAD_LIMIT)
        size = int(bytes(data[:end]).partition(b";")[0], 16)
        while len(data) < end + 4 + size:
            data += _some(sock, _HEAD_LIMIT)
        body += data[end + 2 : end + 2 + size]
        del data[: end + 4 + size]
        if not size:
            return len(body), bytes(body)


def _some(sock: socket.socket, most: int) -> bytes:
    data = sock.recv(most)
    if not data:
        raise UnexpectedAnswer("connection closed before the end of a body")
    return data
