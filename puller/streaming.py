"""Requests whose body is an asynchronous stream, over httpx. Loaded when the first such request is sent.

Law: this is the only file that knows httpx; what leaves it are the words of ``messages``.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
from moorage.puller.errors import BadAnswer
from moorage.puller.messages import Request, SendFailure, Sink, SpanBody, Timeouts
from moorage.puller.origins import Origin, redact
from moorage.puller.route import FindRoute, Route

__all__ = ["StreamingSender"]

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout)
_CHUNK = 256 * 1024


class StreamingSender:
    """Sends requests over connection pools, one for each way to reach an origin."""

    def __init__(
        self, *, route: FindRoute, timeouts: Timeouts, headers: Mapping[str, str], trust: ssl.SSLContext
    ) -> None:
        self._find_route, self._headers, self._trust = route, headers, trust
        self._timeout = httpx.Timeout(timeouts.work, connect=timeouts.connect, write=timeouts.answer, pool=None)
        self._clients: dict[Route, httpx.AsyncClient] = {}

    async def send(self, request: Request) -> StreamedResponse:
        """The answer's head; its body is still to come.

        Raises:
            SendFailure: there was none.
            BadAnswer: the URL is none.
        """
        client = self._client(self._find_route(Origin.of(request.url)))
        body = None if isinstance(request.body, SpanBody) else request.body
        try:
            raw = client.build_request(request.method, request.url, headers=request.headers, content=body)
            return StreamedResponse(await client.send(raw, stream=True))
        except httpx.InvalidURL as exc:
            raise BadAnswer(f"{redact(request.url)}: {exc}") from None
        except httpx.TransportError as exc:
            raise _failure(exc) from exc

    async def close(self) -> None:
        """Closes every connection."""
        for client in self._clients.values():
            await client.aclose()

    def _client(self, route: Route) -> httpx.AsyncClient:
        if route not in self._clients:
            self._clients[route] = httpx.AsyncClient(
                verify=route.tls or self._trust,
                proxy=_proxy(route),
                trust_env=False,
                follow_redirects=False,
                timeout=self._timeout,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                headers=dict(self._headers),
            )
        return self._clients[route]


class StreamedResponse:
    """See ``messages.Response``."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.url = str(response.request.url)

    def header_lines(self, name: str) -> list[str]:
        """See ``Response``."""
        return self._response.headers.get_list(name)

    async def chunks(self) -> AsyncIterator[bytes]:
        """See ``Response``."""
        try:
            async for chunk in self._response.aiter_raw(_CHUNK):
                yield chunk
        except httpx.TransportError as exc:
            raise _failure(exc) from exc

    async def pour(self, sink: Sink) -> None:
        """See ``Response``; answers to streamed bodies are short, so the thread is the loop's."""
        async for chunk in self.chunks():
            if not sink(memoryview(chunk)):
                return

    async def close(self) -> None:
        """See ``Response``."""
        await self._response.aclose()


def _proxy(route: Route) -> httpx.Proxy | None:
    if route.proxy is None:
        return None
    authorization = route.proxy.authorization
    return httpx.Proxy(str(route.proxy.origin), headers={"Proxy-Authorization": authorization} if authorization else {})


def _failure(exc: httpx.TransportError) -> SendFailure:
    return SendFailure(str(exc) or type(exc).__name__, was_sent=not isinstance(exc, _NOT_SENT))
