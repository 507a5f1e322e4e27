"""Blobs over HTTP: reading whole and in ranges, and deleting.

Law: blobs are bytes for programs, never a page for a browser (rule A20), and ``Accept`` is not looked at.
Law of redirects: only a GET that the other place answers as we would is sent there. HEAD, 304, 404 and 416 are ours,
and so is what S3 servers do not understand: several ranges, and conditions on our own ETag.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from moorage.registry.oci import Digest, RangeInvalid, Registry
from moorage.registry.oci.routes import DeleteBlob, GetBlob, HeadBlob
from moorage.registry.web import ranges
from moorage.registry.web.ranges import Span
from moorage.registry.web.respond import Call, Header, digest_headers, header_value

__all__ = ["delete_blob", "get_blob", "head_blob"]

_OCTETS: Final[Header] = (b"content-type", b"application/octet-stream")
_ALWAYS: Final[tuple[Header, ...]] = (
    (b"accept-ranges", b"bytes"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

_REDIRECT_TTL: Final = 600
"""Seconds for which a redirect holds: five minutes to begin the download, five by which the clocks may differ (a store
with a larger difference is refused)."""
_PINNED: Final = {"content-type": "application/octet-stream", "content-disposition": "attachment"}
_ONE_RANGE = re.compile(r"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})")


async def head_blob(registry: Registry, endpoint: HeadBlob, call: Call) -> None:
    """Says whether the repository has the blob; clients ask before they push, so it is then kept for them (M6)."""
    descriptor = await registry.resolve_blob(endpoint.repository, endpoint.digest, for_push=True)
    status = 304 if call.is_known(endpoint.digest) else 200
    await call.reply(status, _headers(endpoint.digest, _OCTETS), length=descriptor.size)


async def get_blob(registry: Registry, endpoint: GetBlob, call: Call) -> None:
    """Sends the blob or the ranges asked for, or says from where the client can fetch them."""
    wanted = call.header(b"range")
    if call.is_known(endpoint.digest):
        # Knowing a digest must not tell whether the repository has it: 404 goes before 304.
        await registry.resolve_blob(endpoint.repository, endpoint.digest)
        await call.reply(304, _headers(endpoint.digest, _OCTETS))
    elif await _redirect(registry, endpoint, call, wanted=wanted):
        return
    elif wanted is None or not _if_range_holds(call, endpoint.digest):
        await _send_whole(registry, endpoint, call)
    else:
        await _send_ranges(registry, endpoint, call, wanted=wanted)


async def delete_blob(registry: Registry, endpoint: DeleteBlob, call: Call) -> None:
    """Removes the blob from the repository."""
    await registry.delete_blob(endpoint.repository, endpoint.digest)
    await call.reply(202)


async def _redirect(registry: Registry, endpoint: GetBlob, call: Call, *, wanted: str | None) -> bool:
    """Sends the client to where the blob lies, if that place answers as we would; says whether it did."""
    if call.header(b"if-match") is not None:
        return False
    if wanted is not None and (not _ONE_RANGE.fullmatch(wanted) or call.header(b"if-range") is not None):
        return False
    place = await registry.locate_blob(endpoint.repository, endpoint.digest, ttl=_REDIRECT_TTL, headers=_PINNED)
    if place is None or (wanted is not None and not ranges.select(wanted, place.descriptor.size)):
        return False
    # The ETag of what comes is not ours to say, and the URL is a secret of this client: no cache may keep it.
    digest, _ = digest_headers(endpoint.digest)
    await call.reply(307, [(b"location", header_value(place.url)), digest, (b"cache-control", b"no-store")])
    return True


async def _send_whole(registry: Registry, endpoint: GetBlob, call: Call) -> None:
    async with registry.read_blob(endpoint.repository, endpoint.digest) as stream:
        await call.stream(200, _headers(endpoint.digest, _OCTETS), stream, length=stream.descriptor.size)


async def _send_ranges(registry: Registry, endpoint: GetBlob, call: Call, *, wanted: str) -> None:
    size = (await registry.resolve_blob(endpoint.repository, endpoint.digest)).size
    spans = ranges.select(wanted, size)
    if spans is None:
        await _send_whole(registry, endpoint, call)
    elif not spans:
        call.error_headers = [(b"content-range", b"bytes */%d" % size)]
        raise RangeInvalid("no such bytes in this blob", detail={"range": wanted[:256], "size": size})
    elif len(spans) == 1:
        await _send_span(registry, endpoint, call, span=spans[0], size=size)
    else:
        await _send_spans(registry, endpoint, call, spans=spans, size=size)


async def _send_span(registry: Registry, endpoint: GetBlob, call: Call, *, span: Span, size: int) -> None:
    headers = _headers(endpoint.digest, _OCTETS, (b"content-range", _content_range(span, size)))
    async with registry.read_blob(endpoint.repository, endpoint.digest, start=span.start, stop=span.stop) as stream:
        await call.stream(206, headers, stream, length=span.length)


async def _send_spans(registry: Registry, endpoint: GetBlob, call: Call, *, spans: Sequence[Span], size: int) -> None:
    """As ``multipart/byteranges`` (RFC 9110 section 14.6): podman asks so for missing files of a zstd:chunked layer."""
    boundary = secrets.token_hex(16).encode("ascii")
    heads = [
        b"\r\n--%b\r\nContent-Type: application/octet-stream\r\nContent-Range: %b\r\n\r\n"
        % (boundary, _content_range(span, size))
        for span in spans
    ]
    tail = b"\r\n--%b--\r\n" % boundary
    length = sum(map(len, heads)) + sum(span.length for span in spans) + len(tail)
    headers = _headers(endpoint.digest, (b"content-type", b"multipart/byteranges; boundary=" + boundary))
    async with aclosing(_multipart(registry, endpoint, spans, heads, tail)) as parts:
        await call.stream(206, headers, parts, length=length)


async def _multipart(
    registry: Registry, endpoint: GetBlob, spans: Sequence[Span], heads: Sequence[bytes], tail: bytes
) -> AsyncGenerator[bytes, None]:
    for span, head in zip(spans, heads, strict=True):
        async with registry.read_blob(endpoint.repository, endpoint.digest, start=span.start, stop=span.stop) as part:
            yield head
            async for chunk in part:
                yield chunk
    yield tail


def _headers(digest: Digest, *specific: Header) -> list[Header]:
    return [*specific, *digest_headers(digest), *_ALWAYS]


def _content_range(span: Span, size: int) -> bytes:
    return b"bytes %d-%d/%d" % (span.start, span.stop - 1, size)


def _if_range_holds(call: Call, digest: Digest) -> bool:
    """If-Range needs the strong validator (RFC 9110 section 13.1.5); a date is none that we ever gave."""
    condition = call.header(b"if-range")
    return condition is None or condition.strip() == f'"{digest}"'
