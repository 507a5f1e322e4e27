"""Upload sessions as our protocol names them, and the streams that feed them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterable, AsyncIterator
from urllib.parse import quote, urlsplit

from moorage.puller.origins import Origin, redact
from moorage.puller.transport import Answer
from moorage.puller.wire import location_of
from moorage.registry.oci import BlobUploadUnknown, Digest, RepositoryName, SizeInvalid, Unsupported, UploadStatus

__all__ = [
    "Interruptible",
    "cut",
    "least_chunk",
    "location_of_session",
    "offset_of",
    "session_of_location",
    "status_of",
    "with_digest",
]

# One path segment that is not a dot segment, and a query: nothing that could climb out of the repository's uploads.
_TAIL = re.compile(r"(?!\.{1,2}(?:\?|\Z))[A-Za-z0-9._~=+-]+(?:\?[!-~]*)?")
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,19})")
_ID_LIMIT = 4096


class Interruptible:
    """A stream that ends where its source fails, so that what came before can be sent properly; then it says why.

    Cancellation is not held back.
    """

    def __init__(self, content: AsyncIterable[bytes]) -> None:
        self._content = content
        self._failure: Exception | None = None
        self.size = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._content:
                self.size += len(chunk)
                yield chunk
        except Exception as exc:  # noqa: BLE001 (raised again by raise_failure)
            self._failure = exc

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        """The stream in pieces of ``size`` bytes; the last may be shorter, none is empty."""
        held = bytearray()
        async for chunk in self:
            held += chunk
            while len(held) >= size:
                yield bytes(held[:size])
                del held[:size]
        if held:
            yield bytes(held)

    def raise_failure(self) -> None:
        """Raises what stopped the source, if anything did."""
        if self._failure is not None:
            raise self._failure


async def cut(chunks: AsyncIterable[bytes], *, skip: int, take: int) -> AsyncIterator[bytes]:
    """The ``take`` bytes that follow the first ``skip`` bytes.

    Raises:
        SizeInvalid: the stream ends before.
    """
    async for chunk in chunks:
        dropped = min(skip, len(chunk))
        skip -= dropped
        part = chunk[dropped : dropped + take]
        take -= len(part)
        if part:
            yield part
        if take == 0:
            return
    raise SizeInvalid("the blob is shorter than its registry said", detail={"missing": take})


def with_digest(location: str, digest: Digest) -> str:
    """An upload's URL with the parameter that closes it; all that the registry put there stays as it is."""
    return f"{location}{'&' if '?' in location else '?'}digest={quote(str(digest), safe=':')}"


def session_of_location(repository: RepositoryName, location: str) -> str:
    """The id of the upload at ``location``.

    Raises:
        Unsupported: this registry's uploads lie elsewhere than the specification draws them; push whole blobs instead.
    """
    parts = urlsplit(location)
    tail = parts.path.removeprefix(_prefix(repository)) + (f"?{parts.query}" if parts.query else "")
    session = base64.urlsafe_b64encode(tail.encode()).decode().rstrip("=")
    if not parts.path.startswith(_prefix(repository)) or _TAIL.fullmatch(tail) is None or len(session) > _ID_LIMIT:
        raise Unsupported(f"uploads at {redact(location)} cannot be handed on as sessions")
    return session


def location_of_session(origin: Origin, repository: RepositoryName, session: str) -> str:
    """The URL of the upload that ``session`` names.

    Raises:
        BlobUploadUnknown: it is not an id of ours.
    """
    try:
        tail = base64.b64decode(session + "=" * (-len(session) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        tail = ""
    if _TAIL.fullmatch(tail) is None:
        raise BlobUploadUnknown(detail={"upload": session[:256]})
    return f"{origin}{_prefix(repository)}{tail}"


def status_of(repository: RepositoryName, answer: Answer, *, asked: str | None = None) -> UploadStatus:
    """What an answer says of an upload; ``asked`` is its id where the answer does not repeat the Location.

    A ``Range`` of ``0-0`` means one byte or none: registries send it for an empty upload too. It is read as none, and
    whoever goes on from there is told by the registry (416) if it was one.
    """
    has_location = answer.header("Location") is not None or asked is None
    session = session_of_location(repository, location_of(answer)) if has_location else asked
    return UploadStatus(str(session), offset_of(answer), least_chunk(answer))


def offset_of(answer: Answer) -> int:
    """How many bytes an upload has, says its answer; see ``status_of`` for one byte."""
    match = _RANGE.fullmatch(answer.header("Range") or "")
    last = int(match[1]) if match else 0
    return last + 1 if last else 0


def least_chunk(answer: Answer) -> int:
    """The least size of a chunk that is not the last, bytes; 0 where the registry does not say."""
    minimum = answer.header("OCI-Chunk-Min-Length") or ""
    is_number = minimum.isascii() and minimum.isdigit() and len(minimum) < 16
    return int(minimum) if is_number else 0


def _prefix(repository: RepositoryName) -> str:
    return f"/v2/{repository}/blobs/uploads/"
