"""Brings one blob to a registry: mounted where possible, else sent in one request, resumed where that broke.

Law of order: POST, one PUT with all the bytes. Only when that breaks does the session's status say where to go on:
pieces by PATCH, each with its Content-Range and never below the registry's least chunk, and an empty closing PUT. A
session that is gone has either become the blob, which HEAD tells, or is begun anew.
Law of trust: the registry verifies the digest (it is in the closing request), so nothing is hashed here.
Law of patience: what passes (a broken connection, 429, 5xx) is tried again as long as the offset grows, and otherwise
as often as the retry policy says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Sequence
from contextlib import suppress
from typing import Protocol

from moorage.puller.errors import RateLimited
from moorage.puller.messages import SpanBody
from moorage.puller.sessions import least_chunk, offset_of, with_digest
from moorage.puller.transport import Answer
from moorage.puller.wire import Wire, location_of
from moorage.registry.oci import (
    CANONICAL,
    BlobUploadInvalid,
    BlobUploadUnknown,
    Descriptor,
    DigestInvalid,
    InternalError,
    OciError,
    RangeInvalid,
    RepositoryName,
    TooManyRequests,
    Unavailable,
    routes,
)
from moorage.registry.oci.media_types import OCTET_STREAM
from moorage.registry.oci.values import dataclass

__all__ = ["Body", "Content", "Listener", "Mount", "Upload"]

_PIECE = 16 * 1024 * 1024
"""Bytes of one chunk of a resumed upload; S3-based registries want at least 5 MiB."""

_MOUNT_ATTEMPTS = 3
_BINARY = {"Content-Type": OCTET_STREAM}
_PASSING = (Unavailable, TooManyRequests, InternalError, BlobUploadUnknown)
_LOST_THE_THREAD = (RangeInvalid, BlobUploadInvalid)


Body = SpanBody | AsyncIterable[bytes]


class Content(Protocol):
    """The bytes of a blob, as often as needed and from any byte on."""

    def body(self, start: int, stop: int) -> Body:
        """Bytes ``start`` up to, not including, ``stop``, as the body of a request."""


class Listener(Protocol):
    """Is told how an upload gets on, in the thread of the event loop."""

    def resumed(self, offset: int) -> None:
        """The registry has the first ``offset`` bytes; the rest follows."""

    def retried(self, error: str, delay: float) -> None:
        """Something broke; the next attempt begins after ``delay`` seconds."""


@dataclass(frozen=True, slots=True)
class Mount:
    """Whether a mount succeeded, and from where; None: the registry found it by itself."""

    done: bool
    source: RepositoryName | None = None


@dataclass(frozen=True, slots=True)
class _Session:
    """An open upload. ``is_whole``: nothing was sent yet, so one request can do."""

    location: str
    min_chunk: int = 0
    offset: int = 0
    is_whole: bool = True


class Upload:
    """One blob on its way to one repository."""

    def __init__(self, wire: Wire, repository: RepositoryName, blob: Descriptor) -> None:
        self._wire = wire
        self._repository = repository
        self._blob = blob
        self._session: _Session | None = None

    def __repr__(self) -> str:
        return f"<Upload {self._blob.digest} to {self._wire.origin}/{self._repository} at {self._offset}>"

    async def mount(self, sources: Sequence[RepositoryName]) -> Mount:
        """Asks to make the blob of another repository readable here; a session that is opened instead serves ``send``.

        Args:
            sources: repositories that may have it, the likeliest first; without any, the registry may look by itself.
        """
        candidates: Sequence[RepositoryName | None] = sources[:_MOUNT_ATTEMPTS] or [None]
        for source in candidates:
            await self.cancel()
            endpoint = routes.StartUpload(self._repository, mount=self._blob.digest, source=source)
            try:
                async with self._wire.call(endpoint, body=b"", idempotent=False) as answer:
                    if answer.status == 201:
                        return Mount(True, source)
                    self._session = _session_of(answer)
            except (Unavailable, TooManyRequests):
                raise
            except OciError:
                continue  # refused, not known, or not understood: nothing to mount from there
        return Mount(False)

    async def send(self, content: Content, listener: Listener) -> None:
        """The registry has the blob when this returns.

        Raises:
            DigestInvalid, SizeInvalid: the bytes are not those of the blob; the session is dropped.
            OciError: what the registry refused, or what did not pass in time.
        """
        failures, furthest = 0, 0
        while True:
            try:
                if failures and await self._has_become_the_blob(listener):
                    return
                if self._offset > furthest:
                    failures, furthest = 0, self._offset
                await self._attempt(content)
            except OciError as failure:
                failures, asked = failures + 1, _asked_delay(failure)
                is_patient = failures < self._wire.retry.attempts and asked <= self._wire.retry.longest_delay
                if not is_patient or not self._may_pass(failure):
                    await self.cancel()
                    raise
                delay = max(self._wire.retry.backoff(failures - 1), asked)
                listener.retried(failure.message, delay)
                await asyncio.sleep(delay)
            except Exception:  # the content could not be read
                await self.cancel()
                raise
            else:
                return

    async def cancel(self) -> None:
        """Drops the session, if there is one. A session that stays nevertheless expires by itself."""
        session, self._session = self._session, None
        if session is not None:
            endpoint = routes.CancelUpload(self._repository, "-")
            with suppress(OciError):
                async with self._wire.call(endpoint, at=session.location, idempotent=False):
                    pass

    async def _attempt(self, content: Content) -> None:
        session = self._session = self._session or await self._start()
        if session.is_whole:
            await self._close(session, content.body(0, self._blob.size), self._blob.size)
            return
        while session.offset < self._blob.size:
            session = self._session = await self._append(session, content)
        try:
            await self._close(session, b"", 0)
        except DigestInvalid:  # something was lost between the parts: once more, whole
            self._session = None
            raise Unavailable(f"{self._wire.origin}: the parts of {self._blob.digest} did not fit together") from None

    async def _start(self) -> _Session:
        algorithm = self._blob.digest.algorithm
        hint = None if algorithm == CANONICAL else algorithm
        endpoint = routes.StartUpload(self._repository, algorithm=hint)
        async with self._wire.call(endpoint, body=b"", idempotent=False) as answer:
            return _session_of(answer)

    async def _append(self, session: _Session, content: Content) -> _Session:
        stop = min(session.offset + max(_PIECE, session.min_chunk), self._blob.size)
        headers = {
            **_BINARY,
            "Content-Length": str(stop - session.offset),
            "Content-Range": f"{session.offset}-{stop - 1}",
        }
        async with self._wire.call(
            routes.AppendUpload(self._repository, "-"),
            at=session.location,
            headers=headers,
            body=content.body(session.offset, stop),
            idempotent=False,
        ) as answer:
            location = location_of(answer) if answer.header("Location") else session.location
        return _Session(location, session.min_chunk, stop, is_whole=False)

    async def _close(self, session: _Session, body: bytes | Body, size: int) -> None:
        digest = self._blob.digest
        async with self._wire.call(
            routes.FinishUpload(self._repository, "-", digest),
            at=with_digest(session.location, digest),
            headers={**_BINARY, "Content-Length": str(size)},
            body=body,
            idempotent=False,
        ):
            self._session = None

    async def _has_become_the_blob(self, listener: Listener) -> bool:
        """Finds out where the session stands after a failure. A session that leads nowhere is dropped."""
        if self._session is None:
            return False
        session, endpoint = self._session, routes.GetUpload(self._repository, "-")
        try:
            async with self._wire.call(endpoint, at=session.location) as answer:
                location = location_of(answer) if answer.header("Location") else session.location
                offset = min(offset_of(answer), self._blob.size)
        except (Unavailable, TooManyRequests, InternalError):
            raise  # it may stand anywhere: nothing is sent before it is known
        except OciError:
            self._session = None
            return await self._exists()
        if offset == 0 or (offset == session.offset and not session.is_whole):
            await self.cancel()
        else:
            self._session = _Session(location, session.min_chunk, offset, is_whole=False)
        listener.resumed(self._offset)
        return False

    @property
    def _offset(self) -> int:
        return self._session.offset if self._session else 0

    def _may_pass(self, failure: OciError) -> bool:
        """Whether another attempt may help: always for what passes, and where only the session is in trouble."""
        is_resumed = self._session is not None and not self._session.is_whole
        return isinstance(failure, _PASSING) or (is_resumed and isinstance(failure, _LOST_THE_THREAD))

    async def _exists(self) -> bool:
        try:
            async with self._wire.call(routes.HeadBlob(self._repository, self._blob.digest)):
                return True
        except OciError:
            return False


def _asked_delay(failure: OciError) -> float:
    """Seconds that the registry asks to wait; 0 where it does not."""
    return (failure.retry_after or 0.0) if isinstance(failure, RateLimited) else 0.0


def _session_of(answer: Answer) -> _Session:
    return _Session(location_of(answer), least_chunk(answer))
