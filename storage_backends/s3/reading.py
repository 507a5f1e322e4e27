"""An object on its way from S3.

Law: one version from the first byte to the last. A connection that breaks is taken up again at its byte, of the same
version only. Where ETags are hashes, a small object that does not have its own was torn by the server while it was
overwritten, and is read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final

from moorage.storage_backends.base import ObjectInfo
from moorage.storage_backends.errors import StorageUnavailable
from moorage.storage_backends.s3.calls import Calls, Refused, Uncertain

__all__ = ["S3Reading", "describe", "open_reading"]

_CHUNK: Final = 1024 * 1024
_CRUMB: Final = 16 * 1024


class S3Reading:
    """A reading whose first chunk is here already."""

    def __init__(self, calls: Calls, remote: str, info: ObjectInfo, *, start: int, stop: int) -> None:
        self.info = info
        self._calls = calls
        self._remote = remote
        self._at = start
        self._stop = stop
        self._first = b""
        self._piece = _CHUNK
        self._body: Any = None

    def begin(self, first: bytes, body: Any) -> None:
        """Takes the first bytes, and the stream that the others come from."""
        self._first = first
        self._body = body

    def file(self) -> None:
        """See ``Reading.file``: there is no file."""

    def close(self) -> None:
        """Drops the connection."""
        if self._body is not None:
            self._body.close()
            self._body = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._first:
            self._at += len(self._first)
            yield self._first
        while self._at < self._stop:
            chunk = await self._next()
            self._at += len(chunk)
            yield chunk

    async def _next(self) -> bytes:
        """The next bytes, after a broken connection from a new one.

        Raises:
            StorageUnavailable: there are none within the time that a call may take.
        """
        return await self._calls.persist(self._try_next)

    async def _try_next(self) -> bytes:
        if self._body is None:
            await self._reopen()
        body = self._body
        try:
            chunk: bytes = await self._calls.run("read", lambda: body.read(self._piece))
        except Uncertain:
            self.close()
            self._piece = _CRUMB  # what came before a break is lost, so on a bad line less is asked for at once
            raise
        self._piece = min(_CHUNK, 2 * self._piece)
        if not chunk:
            self.close()
            raise Uncertain(f"S3 ends {self.info.key} before its last byte")
        return chunk

    async def _reopen(self) -> None:
        span = f"bytes={self._at}-{self._stop - 1}"
        try:
            answer = await self._calls.once("get_object", Key=self._remote, Range=span, IfMatch=self.info.version)
        except Refused as exc:
            raise StorageUnavailable(f"{self.info.key} was replaced while it was read") from exc
        self._body = answer["Body"]


async def open_reading(
    calls: Calls, key: str, remote: str, *, start: int, stop: int | None, checked: bool
) -> S3Reading:
    """Opens bytes ``start`` up to ``stop`` of the object ``remote``, called ``key`` by our callers.

    Args:
        checked: a small object is compared with its ETag.

    Raises:
        Refused: there is no such object.
        StorageUnavailable: the server does not answer, or tears the object every time.
    """
    try:
        answer, first = await calls.persist(lambda: _fetch(calls, remote, start, stop, checked))
    except Refused as exc:
        if exc.status != 416:
            raise
        info = describe(key, await calls.repeat("head_object", Key=remote))
        return S3Reading(calls, remote, info, start=0, stop=0)
    info = describe(key, answer)
    reading = S3Reading(calls, remote, info, start=start, stop=min(info.size, info.size if stop is None else stop))
    reading.begin(first, answer["Body"])
    return reading


async def _fetch(
    calls: Calls, remote: str, start: int, stop: int | None, checked: bool
) -> tuple[dict[str, Any], bytes]:
    """The answer and the first chunk.

    Raises:
        Uncertain: what came is torn, or broke off.
    """
    span: dict[str, Any] = {}
    if start or stop is not None:
        span["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    answer = await calls.once("get_object", Key=remote, **span)
    try:
        first: bytes = await calls.run("read", lambda: answer["Body"].read(_CHUNK))
    except Uncertain:
        answer["Body"].close()
        raise
    if checked and len(first) == describe(remote, answer).size and not _has_its_etag(first, answer):
        answer["Body"].close()
        raise Uncertain(f"S3 gives {remote} torn: its bytes are not those of its ETag")
    return answer, first


def describe(key: str, answer: dict[str, Any]) -> ObjectInfo:
    """The facts in an answer to GET or HEAD. Times are whole seconds: HEAD knows no finer ones."""
    span = answer.get("ContentRange")
    size = int(span.rpartition("/")[2]) if span else int(answer["ContentLength"])
    return ObjectInfo(key, size, answer["ETag"], float(int(answer["LastModified"].timestamp())))


def _has_its_etag(content: bytes, answer: dict[str, Any]) -> bool:
    etag = str(answer["ETag"]).strip('"')
    if len(etag) != 32 or "kms" in answer.get("ServerSideEncryption", ""):
        return True  # of several parts, or encrypted: not a hash of the content
    return hashlib.md5(content, usedforsecurity=False).hexdigest() == etag
