"""``/v2``: one plain ASGI application, from the raw request to the handler of its endpoint.

Law: this is the border. Below it errors are exceptions, above it answers; an error that the protocol has no word for
becomes 500 without a word about our insides, and goes to the log.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Final, assert_never

from moorage.registry.oci import InternalError, OciError, Registry, Unauthorized
from moorage.registry.oci.routes import (
    AppendUpload,
    CancelUpload,
    DeleteBlob,
    DeleteManifest,
    Endpoint,
    FinishUpload,
    GetBlob,
    GetManifest,
    GetUpload,
    HeadBlob,
    HeadManifest,
    ListReferrers,
    ListRepositories,
    ListTags,
    Ping,
    PutManifest,
    StartUpload,
    parse,
)
from moorage.registry.web import blobs, listings, manifests, uploads
from moorage.registry.web.respond import JSON, Call, ClientLeft
from starlette.types import Receive, Scope, Send

if TYPE_CHECKING:
    from moorage.registry.web.gate import Gate

__all__ = ["Dispatcher"]

_log: Final = logging.getLogger(__name__)


class Dispatcher:
    """The distribution API over a registry. ``gate``: who may come in; None: everybody.

    ``scope["moorage.endpoint"]`` tells the layers around it which endpoint was asked for, or ``Invalid``.
    """

    def __init__(self, registry: Registry, *, gate: Gate | None = None) -> None:
        self._registry = registry
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request.

        Raises:
            Exception: the answer had begun when it failed; the server must break the connection.
        """
        scope["moorage.endpoint"] = "Invalid"
        call = Call(scope, receive, send)
        endpoint: Endpoint | None = None
        try:
            endpoint = _endpoint(scope)
            scope["moorage.endpoint"] = type(endpoint).__name__
            registry = self._registry
            if self._gate is not None:
                registry = self._gate.known(scope, endpoint) or await self._gate.admit(scope, endpoint)
            await _handle(registry, endpoint, call)
        except ClientLeft:
            return
        except Exception as exc:
            if call.started:
                raise
            error = _as_answer(exc)
            if self._gate is not None and endpoint is not None and isinstance(error, Unauthorized):
                error, challenge = self._gate.challenge(scope, endpoint, error)
                call.error_headers = [challenge]
            await call.refuse(error)


def _endpoint(scope: Scope) -> Endpoint:
    # latin-1 never fails, and what is not ASCII fits no grammar.
    path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    return parse(scope["method"], path, query) if query else _parse_path(scope["method"], path)


@lru_cache(maxsize=4096)
def _parse_path(method: str, path: str) -> Endpoint:
    """Endpoints without query, remembered, as hot images ask for the same few. What does not parse is not kept."""
    return parse(method, path)


async def _handle(registry: Registry, endpoint: Endpoint, call: Call) -> None:
    match endpoint:
        case GetManifest():
            await manifests.get_manifest(registry, endpoint, call)
        case GetBlob():
            await blobs.get_blob(registry, endpoint, call)
        case HeadBlob():
            await blobs.head_blob(registry, endpoint, call)
        case HeadManifest():
            await manifests.head_manifest(registry, endpoint, call)
        case PutManifest():
            await manifests.put_manifest(registry, endpoint, call)
        case Ping():
            await call.reply(200, [JSON], b"{}")
        case ListTags():
            await listings.list_tags(registry, endpoint, call)
        case ListReferrers():
            await listings.list_referrers(registry, endpoint, call)
        case ListRepositories():
            await listings.list_repositories(registry, endpoint, call)
        case DeleteManifest():
            await manifests.delete_manifest(registry, endpoint, call)
        case DeleteBlob():
            await blobs.delete_blob(registry, endpoint, call)
        case _:
            await _handle_upload(registry, endpoint, call)


async def _handle_upload(
    registry: Registry,
    endpoint: StartUpload | GetUpload | AppendUpload | FinishUpload | CancelUpload,
    call: Call,
) -> None:
    match endpoint:
        case StartUpload():
            await uploads.start_upload(registry, endpoint, call)
        case GetUpload():
            await uploads.upload_status(registry, endpoint, call)
        case AppendUpload():
            await uploads.append_upload(registry, endpoint, call)
        case FinishUpload():
            await uploads.finish_upload(registry, endpoint, call)
        case CancelUpload():
            await uploads.cancel_upload(registry, endpoint, call)
        case _:
            assert_never(endpoint)


def _as_answer(exc: Exception) -> OciError:
    if isinstance(exc, OciError):
        return exc
    _log.error("request failed", exc_info=exc)
    return InternalError()
