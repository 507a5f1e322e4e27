"""One registry on the wire: an endpoint goes out, an answer or the protocol's error comes back.

Law: ``Authorization`` is added here and only for the registry's own origin. A 401 is answered by one login and one
repetition; a body that cannot be sent twice is therefore preceded by a request that can.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from http import HTTPStatus

from moorage.auth.scope import Scope
from moorage.puller.answers import type_of
from moorage.puller.errors import BadAnswer, RateLimited
from moorage.puller.foreign import ask_elsewhere
from moorage.puller.login import Login
from moorage.puller.messages import SpanBody
from moorage.puller.origins import Origin, follow, redact
from moorage.puller.transport import ERROR_LIMIT, Answer, Request, Transport, retry_after
from moorage.registry.oci import (
    BlobUnknown,
    BlobUploadUnknown,
    Denied,
    ManifestUnknown,
    NameUnknown,
    OciError,
    error_from_wire,
    routes,
)

__all__ = ["Wire", "checked", "error_of", "location_of"]

_READS = (
    routes.GetBlob,
    routes.HeadBlob,
    routes.GetManifest,
    routes.HeadManifest,
    routes.ListTags,
    routes.ListReferrers,
)
_SHORT = 200
_CATALOG = Scope.parse("registry:catalog:*")
_DELETES = (routes.DeleteBlob, routes.DeleteManifest)
# Registries disagree on codes, and a HEAD has none; what was asked for tells what is missing.
_ABSENT: Mapping[type[routes.Endpoint], type[OciError]] = {
    routes.GetBlob: BlobUnknown,
    routes.HeadBlob: BlobUnknown,
    routes.DeleteBlob: BlobUnknown,
    routes.GetManifest: ManifestUnknown,
    routes.HeadManifest: ManifestUnknown,
    routes.DeleteManifest: ManifestUnknown,
    routes.GetUpload: BlobUploadUnknown,
    routes.AppendUpload: BlobUploadUnknown,
    routes.FinishUpload: BlobUploadUnknown,
    routes.CancelUpload: BlobUploadUnknown,
    routes.ListTags: NameUnknown,
}


class Wire:
    """Calls endpoints of one registry."""

    def __init__(self, transport: Transport, origin: Origin, login: Login) -> None:
        self._transport = transport
        self._login = login
        self.origin = origin
        self.retry = transport.retry

    @asynccontextmanager
    async def call(
        self,
        endpoint: routes.Endpoint,
        *,
        at: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | SpanBody | AsyncIterable[bytes] | None = None,
        idempotent: bool = True,
    ) -> AsyncIterator[Answer]:
        """The registry's answer, of a status below 400.

        Args:
            at: the URL to use, where the registry named it (an upload, a next page).

        Raises:
            OciError: what the registry answered, or why it could not be asked.
        """
        method, path, query = routes.url(endpoint)
        url = at or f"{self.origin}{path}{'?' if query else ''}{query}"
        request = Request(method, url, headers or {}, body, idempotent)
        async with self._ask(endpoint, request) as answer:
            yield await checked(endpoint, answer)

    @asynccontextmanager
    async def ask(self, endpoint: routes.Endpoint, *, headers: Mapping[str, str]) -> AsyncIterator[Answer]:
        """The registry's answer to a read, whatever its status, after one attempt (and a login, where it wants one).

        Raises:
            OciError: it could not be asked, or the login failed.
        """
        method, path, query = routes.url(endpoint)
        url = f"{self.origin}{path}{'?' if query else ''}{query}"
        async with self._ask(endpoint, Request(method, url, headers, patient=False)) as answer:
            yield answer

    def ask_elsewhere(self, urls: Sequence[str], *, headers: Mapping[str, str]) -> AbstractAsyncContextManager[Answer]:
        """See ``foreign``; our credentials stay here."""
        return ask_elsewhere(self._transport, urls, registry=self.origin, headers=headers)

    @asynccontextmanager
    async def _ask(self, endpoint: routes.Endpoint, request: Request) -> AsyncIterator[Answer]:
        scope = _scope_of(endpoint)
        sent, failures = self._header(request, scope), self._login.failures
        async with self._transport.exchange(_signed(request, sent)) as answer:
            if answer.status != 401 or not request.is_replayable or not self._is_challenge(request, answer):
                self._check_head(request, scope, answer)
                yield answer
                return
            if not await self._login.answer_challenge(scope, answer, sent=sent, failures=failures):
                raise await error_of(endpoint, answer)
        async with self._transport.exchange(_signed(request, self._header(request, scope))) as answer:
            if answer.status == 401 and self._is_challenge(request, answer):
                raise self._login.refusal(scope)
            self._check_head(request, scope, answer)
            yield answer

    def _check_head(self, request: Request, scope: Scope, answer: Answer) -> None:
        """Says what a refused HEAD cannot say, since it has no body.

        Raises:
            Denied: it was refused.
        """
        if answer.status == 403 and request.method == "HEAD" and self._is_challenge(request, answer):
            raise Denied(self._login.refusal(scope).message)

    def _is_challenge(self, request: Request, answer: Answer) -> bool:
        """Whether a refusal is about our credentials: the registry's own, not a redirect target's."""
        return self._is_ours(request) and Origin.of(answer.url) == self.origin

    def _header(self, request: Request, scope: Scope) -> str | None:
        return self._login.header(scope) if self._is_ours(request) else None

    def _is_ours(self, request: Request) -> bool:
        return Origin.of(request.url) == self.origin


def _signed(request: Request, header: str | None) -> Request:
    return replace(request, headers={**request.headers, "Authorization": header}) if header else request


def location_of(answer: Answer) -> str:
    """The absolute URL that an answer's Location names.

    Raises:
        BadAnswer: there is none, or it leads where we do not go.
    """
    location = answer.header("Location")
    if not location:
        raise BadAnswer(f"{redact(answer.url)}: answered without a Location")
    return follow(answer.url, location)


def _scope_of(endpoint: routes.Endpoint) -> Scope:
    match endpoint:
        case routes.Ping():
            return Scope()
        case routes.ListRepositories():
            return _CATALOG
        case routes.StartUpload(repository, source=source) if source is not None:
            return Scope.repository(repository, "pull", "push") | Scope.repository(source, "pull")
        case _ if isinstance(endpoint, _READS):
            return Scope.repository(endpoint.repository, "pull")
        case _ if isinstance(endpoint, _DELETES):
            return Scope.repository(endpoint.repository, "delete", "pull")
        case _:
            return Scope.repository(endpoint.repository, "pull", "push")


async def checked(endpoint: routes.Endpoint, answer: Answer) -> Answer:
    """The answer, if its status is below 400.

    Raises:
        OciError: what the registry answered.
    """
    if answer.status >= 400:
        raise await error_of(endpoint, answer)
    return answer


async def error_of(endpoint: routes.Endpoint, answer: Answer) -> OciError:
    """The error class that the port promises for this endpoint, with what was asked and the registry's own words."""
    body = await answer.read_body(ERROR_LIMIT)
    code, message, detail = _parse_error(body)
    message = f"{redact(answer.url)}: {message or _describe(answer, body)}"
    absent = _ABSENT.get(type(endpoint))
    if answer.status == 404 and absent is not None:
        return absent(message, detail=detail)
    if answer.status == 429:
        return RateLimited(message, detail=detail, retry_after=retry_after(answer) or None)
    return error_from_wire(answer.status, code, message, detail=detail)


def _parse_error(body: bytes) -> tuple[str | None, str | None, object]:
    """Code, message and detail of the first error; proxies answer with anything, so anything else is just absent."""
    try:
        first = json.loads(body)["errors"][0]
        code, message, detail = first.get("code"), first.get("message"), first.get("detail")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None, None, None
    return (code if isinstance(code, str) else None), (message if isinstance(message, str) else None), detail


def _describe(answer: Answer, body: bytes) -> str:
    """Status and phrase; and the words of servers that answer with one line, as Go's do to HTTP on a port of HTTPS."""
    words = body.decode(errors="replace").strip() if type_of(answer) is None else ""
    is_line = 0 < len(words) <= _SHORT and "\n" not in words and words[0] not in "{[<"
    return f"{answer.status} {_phrase(answer.status)}{f': {words}' if is_line else ''}"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "of no known meaning"
