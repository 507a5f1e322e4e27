"""The server's ASGI application: ``/v2`` goes straight to the dispatcher, the rest to a small Starlette app.

Law: nothing stands between the socket and ``/v2`` that costs time per request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from moorage.registry.oci import NotFound, OciError, Registry, Unsupported
from moorage.registry.web.dispatch import Dispatcher
from moorage.registry.web.respond import COMMON, error_answer
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from moorage.registry.web.gate import Gate

__all__ = ["create_app"]

_TOKENS: Final = (b"/token", b"/.well-known/jwks.json")
_EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"


def create_app(
    registry: Registry,
    *,
    ready: Callable[[], bool] = lambda: True,
    metrics: Callable[[], bytes] | None = None,
    gate: Gate | None = None,
    tokens: ASGIApp | None = None,
) -> ASGIApp:
    """The whole server over ``registry``.

    Args:
        ready: whether this server should get new clients, for ``/readyz``.
        metrics: the text of ``/metrics`` in Prometheus' exposition format; None: there is none.
        gate: who may come in; None: everybody.
        tokens: the token server, for the paths of ``_TOKENS``.
    """
    api, rest = Dispatcher(registry, gate=gate), _operations(ready, metrics)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["raw_path"].startswith(b"/v2"):
            await api(scope, receive, send)
        elif tokens is not None and scope["type"] == "http" and scope["raw_path"] in _TOKENS:
            await tokens(scope, receive, send)
        else:
            await rest(scope, receive, send)

    return app


def _operations(ready: Callable[[], bool], metrics: Callable[[], bytes] | None) -> Starlette:
    async def healthz(_: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def readyz(_: Request) -> Response:
        return Response("ready\n") if ready() else Response("draining\n", status_code=503)

    routes = [Route("/healthz", healthz), Route("/readyz", readyz)]
    if metrics is not None:
        render = metrics

        async def exposition(_: Request) -> Response:
            return Response(render(), headers={"content-type": _EXPOSITION})

        routes.append(Route("/metrics", exposition))
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refuse})
    app.router.redirect_slashes = False
    return app


async def _refuse(request: Request, exc: Exception) -> Response:
    is_method = isinstance(exc, HTTPException) and exc.status_code == 405
    error: OciError = (
        Unsupported(detail={"allow": ["GET", "HEAD"]})
        if is_method
        else NotFound(detail={"path": request.url.path[:256]})
    )
    status, headers, body = error_answer(error)
    response = Response(body, status_code=status)
    response.raw_headers.extend([*COMMON, *headers])
    return response
