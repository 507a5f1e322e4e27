"""HTTP as registries need it: streamed, capped, retried, and careful with secrets.

Law of secrets: ``Authorization`` goes to the origin it was given for; a redirect to any other origin drops it for good,
https is never left for http (rule N2). There is no cookie jar, no netrc, no proxy from the environment.
Law of bytes: bodies are taken raw; an answer with a Content-Encoding is refused (rule N6).
Law of retries: a request is repeated only if its body can be sent again and either it is idempotent or the registry
cannot have acted on it.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from itertools import count
from time import time
from types import TracebackType
from typing import Self

import httpx
from moorage.puller.errors import BadAnswer, Unreachable
from moorage.puller.origins import Origin, follow, redact

__all__ = ["ERROR_LIMIT", "Answer", "Request", "RetryPolicy", "Transport"]

ERROR_LIMIT = 64 * 1024
"""Most bytes read of an error or token answer (rule N5)."""

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TIMEOUT = httpx.Timeout(60.0, connect=10.0, pool=None)
_CHUNK = 256 * 1024
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout)


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
class Request:
    """One request. ``idempotent``: sending it twice means the same as once."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterable[bytes] | None = None
    idempotent: bool = True

    @property
    def is_replayable(self) -> bool:
        """Whether the body can be sent a second time."""
        return self.body is None or isinstance(self.body, bytes)

    def may_follow_failure(self, failure: httpx.TransportError) -> bool:
        """Whether sending again is harmless after ``failure``."""
        return self.is_replayable and (self.idempotent or isinstance(failure, _NOT_SENT))

    def may_follow_status(self, status: int) -> bool:
        """Whether sending again after an answer of ``status`` is harmless and hopeful."""
        return self.is_replayable and status in ({429, 502, 503, 504} if self.idempotent else {429})


class Answer:
    """A status, headers, and a body that is read as it arrives."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.url = str(response.request.url)

    def header(self, name: str) -> str | None:
        """The value of a header; several lines of it are joined by ``, ``."""
        value: str | None = self._response.headers.get(name)
        return value

    def header_lines(self, name: str) -> list[str]:
        """Every line of a header."""
        return self._response.headers.get_list(name)

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
            async for chunk in self._response.aiter_raw(_CHUNK):
                yield chunk
        except httpx.TransportError as exc:
            raise _unreachable(self.url, exc) from exc

    async def read_body(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            BadAnswer: it is longer than ``limit`` bytes.
            Unreachable: the connection broke before its end.
        """
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                raise BadAnswer(f"{redact(self.url)}: answer longer than {limit} bytes")
        return bytes(body)


class Transport:
    """Sends requests over pooled connections. Use it as an async context manager."""

    def __init__(self, *, retry: RetryPolicy | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._retry = retry or RetryPolicy()
        self._client = httpx.AsyncClient(
            verify=tls or _system_trust(),
            trust_env=False,
            follow_redirects=False,
            timeout=_TIMEOUT,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"User-Agent": f"moorage/{version('moorage')}", "Accept-Encoding": "identity", "Accept": "*/*"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    @asynccontextmanager
    async def exchange(self, request: Request) -> AsyncIterator[Answer]:
        """The answer to a request, whatever its status, after redirects and retries.

        Raises:
            Unreachable: no answer could be had.
            BadAnswer: a redirect or an encoding that we refuse.
        """
        response = await self._send_patiently(request)
        try:
            yield Answer(response)
        finally:
            await response.aclose()

    async def _send_patiently(self, request: Request) -> httpx.Response:
        for attempt in count():
            is_last = attempt + 1 >= self._retry.attempts
            delay = self._retry.backoff(attempt)
            try:
                response = await self._follow(request)
            except httpx.TransportError as exc:
                if is_last or not request.may_follow_failure(exc):
                    raise _unreachable(request.url, exc) from exc
            else:
                asked = _retry_after(response)
                delay = max(delay, asked)
                if is_last or not request.may_follow_status(response.status_code) or asked > self._retry.longest_delay:
                    return response
                await response.aclose()
            await asyncio.sleep(delay)
        raise AssertionError("count() does not end")

    async def _follow(self, request: Request) -> httpx.Response:
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._send(request)
            if response.status_code not in _REDIRECTS:
                return response
            await response.aclose()
            request = _redirected(request, response.headers.get("Location"))
        raise BadAnswer(f"{redact(request.url)}: more than {_MAX_REDIRECTS} redirects")

    async def _send(self, request: Request) -> httpx.Response:
        try:
            raw = self._client.build_request(request.method, request.url, headers=request.headers, content=request.body)
        except httpx.InvalidURL as exc:
            raise BadAnswer(f"{redact(request.url)}: {exc}") from None
        response = await self._client.send(raw, stream=True)
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            await response.aclose()
            raise BadAnswer(
                f"{redact(request.url)}: answered with Content-Encoding {encoding!r}, which was not asked for"
            )
        return response


@cache
def _system_trust() -> ssl.SSLContext:
    """The system's certificate authorities; loading them costs some 20 ms, once."""
    return ssl.create_default_context()


def _redirected(request: Request, location: str | None) -> Request:
    """The request to send after a redirect to ``location``."""
    if request.method not in ("GET", "HEAD") or not location:
        raise BadAnswer(f"{redact(request.url)}: unusable redirect of a {request.method}")
    target, headers = follow(request.url, location), dict(request.headers)
    if Origin.of(target) != Origin.of(request.url):
        headers.pop("Authorization", None)
    return replace(request, url=target, headers=headers)


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the answer asks to wait; 0 where it does not."""
    raw = response.headers.get("Retry-After", "").strip()
    if raw.isascii() and raw.isdigit():
        return float(raw[:9])
    try:
        return max(0.0, parsedate_to_datetime(raw).timestamp() - time())
    except (ValueError, OverflowError):
        return 0.0


def _unreachable(url: str, failure: httpx.TransportError) -> Unreachable:
    reason = str(failure) or type(failure).__name__
    return Unreachable(f"{redact(url)}: {reason}")
