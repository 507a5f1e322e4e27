"""Requests and answers, as the transport's laws and both of its senders know them."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from typing import Protocol, runtime_checkable

from moorage.puller.errors import BadAnswer, Stalled, Unreachable
from moorage.puller.origins import Origin, redact
from moorage.registry.oci.values import dataclass, field

__all__ = [
    "ERROR_LIMIT",
    "Answer",
    "Request",
    "Response",
    "RetryPolicy",
    "SendFailure",
    "Sink",
    "SpanBody",
    "Timeouts",
]

ERROR_LIMIT = 64 * 1024
"""Most bytes read of an error or token answer (rule N5)."""

Sink = Callable[[memoryview], bool]
"""Takes the next bytes of a body, which are its own only until it returns; False: no more are wanted."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a request is repeated. ``first_delay``, ``longest_delay``: seconds."""

    attempts: int = 5
    first_delay: float = 0.25
    longest_delay: float = 60.0

    def backoff(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number ``attempt`` (from 0), with jitter."""
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 (spreads load, guards nothing)
        return jitter * min(self.first_delay * float(2**attempt), self.longest_delay)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. ``connect``: to be connected; ``answer``: from the request's last byte to its answer's last header;
    ``work``: the same where the registry must do something first (at the end of an upload some copy all of it);
    ``stall``: the interval in which a body must bring ``stall_size`` bytes, so that a trickle is a stall too.
    """

    connect: float = 10.0
    answer: float = 60.0
    work: float = 900.0
    stall: float = 30.0
    stall_size: int = 32 * 1024


@runtime_checkable
class SpanBody(Protocol):
    """A body that can be sent as often as it must be. ``size``: bytes."""

    @property
    def size(self) -> int:
        """How many bytes it has."""

    def send_to(self, connection: socket.socket) -> None:
        """Sends all of it, from its start, and blocks while it does.

        Raises:
            OSError: the connection broke.
        """


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``idempotent``: sending it twice means the same as once; ``patient``: it is repeated here where that
    is harmless, and not by its caller; ``is_guarded``: it must not reach an address of this network.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | SpanBody | AsyncIterable[bytes] | None = None
    idempotent: bool = True
    patient: bool = True
    is_guarded: bool = False

    @property
    def is_replayable(self) -> bool:
        """Whether the body can be sent a second time."""
        return self.body is None or isinstance(self.body, bytes | SpanBody)

    def may_follow_failure(self, failure: SendFailure) -> bool:
        """Whether sending again is harmless after ``failure``."""
        return self.patient and self.is_replayable and (self.idempotent or not failure.was_sent)

    def may_follow_status(self, status: int) -> bool:
        """Whether sending again after an answer of ``status`` is harmless and hopeful."""
        hopeful = {429, 502, 503, 504} if self.idempotent else {429}
        return self.patient and self.is_replayable and status in hopeful


class SendFailure(Exception):
    """No answer, or not all of it.

    ``was_sent``: the registry may have acted on the request; ``is_stall``: the connection stood, and too little came.
    """

    def __init__(self, reason: str, *, was_sent: bool = True, is_stall: bool = False) -> None:
        super().__init__(reason)
        self.was_sent, self.is_stall = was_sent, is_stall


class Response(Protocol):
    """What a sender got: a status, headers, and a body on its way. Reading raises ``SendFailure``."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def url(self) -> str:
        """What was asked."""

    def header_lines(self, name: str) -> list[str]:
        """Every line of a header."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The raw body."""

    async def pour(self, sink: Sink) -> None:
        """Gives the raw body to ``sink``, in a thread."""

    async def close(self) -> None:
        """Ends it, whether or not the body was read."""


class Answer:
    """A status, headers, and a body that is read as it arrives."""

    def __init__(self, response: Response, *, asked: str = "") -> None:
        self._response, self._asked = response, asked
        self.status = response.status
        self.url = response.url

    def __repr__(self) -> str:
        return f"<Answer {self.status} of {redact(self.url)}>"

    @property
    def was_redirected(self) -> bool:
        """Whether another origin answers than the one that was asked."""
        return bool(self._asked) and Origin.of(self._asked) != Origin.of(self.url)

    def header(self, name: str) -> str | None:
        """The value of a header; several lines of it are joined by ``, ``."""
        lines = self._response.header_lines(name)
        return ", ".join(lines) if lines else None

    def header_lines(self, name: str) -> list[str]:
        """Every line of a header."""
        return self._response.header_lines(name)

    @property
    def content_length(self) -> int | None:
        """The body's length in bytes, where the answer says so."""
        raw = self.header("Content-Length")
        return int(raw) if raw is not None and raw.isascii() and raw.isdigit() and len(raw) < 20 else None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The raw body.

        Raises:
            Unreachable: the connection broke or stalled before its end.
        """
        try:
            async for chunk in self._response.chunks():
                yield chunk
        except SendFailure as exc:
            raise unreachable(self.url, exc) from exc

    async def pour(self, sink: Sink) -> None:
        """Gives the raw body to ``sink`` in large pieces, in one thread: the way for bulk.

        Raises:
            Unreachable: the connection broke or stalled before its end.
        """
        try:
            await self._response.pour(sink)
        except SendFailure as exc:
            raise unreachable(self.url, exc) from exc

    async def read_body(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            BadAnswer: it is longer than ``limit`` bytes.
            Unreachable: the connection broke before its end.
        """
        body = bytearray()

        def take(piece: memoryview) -> bool:
            body.extend(piece[: limit + 1 - len(body)])
            return len(body) <= limit

        await self.pour(take)
        if len(body) > limit:
            raise BadAnswer(f"{redact(self.url)}: answer longer than {limit} bytes")
        return bytes(body)


def unreachable(url: str, failure: SendFailure) -> Unreachable:
    """The error for whoever asked ``url``."""
    from moorage.puller.advice import advise  # noqa: PLC0415 (only failures need it)

    kind = Stalled if failure.is_stall else Unreachable
    return kind(f"{redact(url)}: {failure}{advise(url, failure.__cause__, was_sent=failure.was_sent)}")
