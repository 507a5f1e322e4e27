"""What clients make of a redirect to the store: its content, and the digest that the registry told them."""

from __future__ import annotations

from typing import Final

import httpx

__all__ = ["Following"]

_OURS: Final = (b"host", b"authorization")


class Following(httpx.AsyncBaseTransport):
    """Follows redirects to ``store`` (a URL), and to nowhere else. Law: what logs in here is not told there."""

    def __init__(self, inner: httpx.AsyncBaseTransport, store: str) -> None:
        self._inner, self._store = inner, store

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer to a request. One that was redirected has the headers of both answers, the store's first."""
        first = await self._inner.handle_async_request(request)
        if first.status_code != 307:
            return first
        await first.aread()
        place = httpx.URL(first.headers["location"])
        assert request.method == "GET"
        assert str(place).startswith(f"{self._store}/")
        assert not first.content
        headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _OURS]
        second = await self._inner.handle_async_request(httpx.Request("GET", place, headers=headers))
        told = [(name, value) for name, value in first.headers.raw if name.lower().decode() not in second.headers]
        second.headers = httpx.Headers([*second.headers.raw, *told])
        return second

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._inner.aclose()
