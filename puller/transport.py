"""HTTP as registries need it: streamed, capped, retried, and careful with secrets.

Law of secrets: ``Authorization`` goes to the origin it was given for; a redirect to any other origin drops it for good,
https is never left for http (rule N2). There is no cookie jar, no netrc, and no proxy but the one that the route says.
Law of bytes: bodies are taken raw; an answer with a Content-Encoding is refused (rule N6).
Law of retries: a request is repeated only if its body can be sent again and either it is idempotent or the registry
cannot have acted on it.
Two senders obey these laws: ``plain`` (threads, fast, cheap to load) and, for bodies that are asynchronous streams,
``streaming`` (httpx, loaded when it is needed).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import cache
from itertools import count
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from moorage.puller.about import VERSION
from moorage.puller.errors import BadAnswer
from moorage.puller.messages import (
    ERROR_LIMIT,
    Answer,
    Request,
    Response,
    RetryPolicy,
    SendFailure,
    Timeouts,
    unreachable,
)
from moorage.puller.origins import Origin, follow, redact
from moorage.puller.plain import PlainSender
from moorage.puller.route import FindRoute, direct

if TYPE_CHECKING:
    from moorage.puller.streaming import StreamingSender

__all__ = ["ERROR_LIMIT", "Answer", "Request", "RetryPolicy", "Timeouts", "Transport", "retry_after"]

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Transport:
    """Sends requests over pooled connections. Use it as an async context manager.

    Args:
        route: says for each origin whom to trust and which proxy to take.
    """

    def __init__(
        self, *, retry: RetryPolicy | None = None, route: FindRoute = direct, timeouts: Timeouts | None = None
    ) -> None:
        self.retry = retry or RetryPolicy()
        self._route, self._timeouts = route, timeouts or Timeouts()
        self._headers = {"User-Agent": f"moorage/{VERSION}", "Accept-Encoding": "identity", "Accept": "*/*"}
        self._plain = PlainSender(route=route, timeouts=self._timeouts, headers=self._headers, trust=system_trust)
        self._streaming: StreamingSender | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._plain.close()
        if self._streaming is not None:
            await self._streaming.close()

    @asynccontextmanager
    async def exchange(self, request: Request) -> AsyncIterator[Answer]:
        """The answer to a request, whatever its status, after redirects and retries.

        Raises:
            Unreachable: no answer could be had.
            BadAnswer: a redirect or an encoding that we refuse.
        """
        response = await self._send_patiently(request)
        try:
            yield Answer(response, asked=request.url)
        finally:
            await response.close()

    async def _send_patiently(self, request: Request) -> Response:
        for attempt in count():
            is_last = attempt + 1 >= self.retry.attempts
            asked = 0.0
            try:
                response = await self._follow(request)
            except SendFailure as exc:
                if is_last or not request.may_follow_failure(exc):
                    raise unreachable(request.url, exc) from exc
            else:
                asked = retry_after(Answer(response))
                if is_last or not request.may_follow_status(response.status) or asked > self.retry.longest_delay:
                    return response
                await response.close()
            await asyncio.sleep(max(self.retry.backoff(attempt), asked))
        raise AssertionError("count() does not end")

    async def _follow(self, request: Request) -> Response:
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._send(request)
            if response.status not in _REDIRECTS:
                return response
            await response.close()
            request = _redirected(request, next(iter(response.header_lines("Location")), None))
        raise BadAnswer(f"{redact(request.url)}: more than {_MAX_REDIRECTS} redirects")

    async def _send(self, request: Request) -> Response:
        is_stream = isinstance(request.body, AsyncIterable) and not request.is_replayable
        sender = self._load_streaming() if is_stream else self._plain
        response: Response = await sender.send(request)
        encoding = ", ".join(response.header_lines("Content-Encoding")) or "identity"
        if encoding.lower() != "identity":
            await response.close()
            raise BadAnswer(
                f"{redact(request.url)}: answered with Content-Encoding {encoding!r}, which was not asked for"
            )
        return response

    def _load_streaming(self) -> StreamingSender:
        if self._streaming is None:
            from moorage.puller.streaming import StreamingSender  # noqa: PLC0415 (httpx costs 100 ms)

            self._streaming = StreamingSender(
                route=self._route, timeouts=self._timeouts, headers=self._headers, trust=system_trust()
            )
        return self._streaming


@cache
def system_trust() -> ssl.SSLContext:
    """The system's certificate authorities; loading them costs some 20 ms, once."""
    return ssl.create_default_context()


def retry_after(answer: Answer) -> float:
    """Seconds that the answer asks to wait; 0 where it does not."""
    raw = (answer.header("Retry-After") or "").strip()
    if raw.isascii() and raw.isdigit():
        return float(raw[:9])
    try:
        return max(0.0, parsedate_to_datetime(raw).timestamp() - time())
    except (ValueError, OverflowError):
        return 0.0


def _redirected(request: Request, location: str | None) -> Request:
    """The request to send after a redirect to ``location``."""
    if request.method not in ("GET", "HEAD") or not location:
        raise BadAnswer(f"{redact(request.url)}: unusable redirect of a {request.method}")
    target, headers = follow(request.url, location), dict(request.headers)
    if Origin.of(target) != Origin.of(request.url):
        headers.pop("Authorization", None)
    return replace(request, url=target, headers=headers)
