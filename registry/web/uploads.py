"""Uploads over HTTP: whole blobs, streams, chunks, mounts, and the sessions behind them.

Law: whatever can be refused is refused before the body is read. A body that is cut short is never complete: what
arrived stays in the session, and nothing is committed (rule A14).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from moorage.registry.oci import (
    BlobTooLarge,
    BlobUnknown,
    BlobUploadUnknown,
    Denied,
    Digest,
    NameUnknown,
    RangeInvalid,
    Registry,
    RepositoryName,
    SizeInvalid,
    Unsupported,
    UploadStatus,
)
from moorage.registry.oci.routes import AppendUpload, CancelUpload, FinishUpload, GetUpload, StartUpload
from moorage.registry.web.ranges import parse_content_range
from moorage.registry.web.respond import Call, Header, header_value

__all__ = ["UPLOAD_LIMIT", "append_upload", "cancel_upload", "finish_upload", "start_upload", "upload_status"]

UPLOAD_LIMIT: Final = 100 * 1024**3
"""Largest blob, bytes (reliability figures: 100 GiB); beyond it 413."""


async def start_upload(registry: Registry, endpoint: StartUpload, call: Call) -> None:
    """Mounts, takes a whole blob, or opens a session, which is also what a mount that finds nothing comes to."""
    if endpoint.mount is not None and await _mount(registry, endpoint, endpoint.mount):
        await _reply_created(call, endpoint.repository, endpoint.mount)
    elif endpoint.digest is not None:
        await _take_whole(registry, endpoint.repository, endpoint.digest, call)
        await _reply_created(call, endpoint.repository, endpoint.digest)
    else:
        hint = endpoint.mount.algorithm if endpoint.mount else None
        status = await registry.start_upload(endpoint.repository, algorithm=endpoint.algorithm or hint)
        await call.reply(202, _session_headers(endpoint.repository, status))


async def upload_status(registry: Registry, endpoint: GetUpload, call: Call) -> None:
    """Says how far the session is."""
    status = await registry.upload_status(endpoint.repository, endpoint.upload)
    await call.reply(204, _session_headers(endpoint.repository, status))


async def append_upload(registry: Registry, endpoint: AppendUpload, call: Call) -> None:
    """Adds the body to the session: a stream, or the chunk that Content-Range says."""
    async with _session_in_refusal(registry, endpoint, call):
        status = await _append(registry, endpoint, call)
    await call.reply(202, _session_headers(endpoint.repository, status))


async def finish_upload(registry: Registry, endpoint: FinishUpload, call: Call) -> None:
    """Adds the last bytes, if any, and makes the session a blob."""
    async with _session_in_refusal(registry, endpoint, call):
        if call.content_length != 0 or call.header(b"content-range") is not None:
            await _append(registry, endpoint, call)
        await registry.finish_upload(endpoint.repository, endpoint.upload, endpoint.digest)
    await _reply_created(call, endpoint.repository, endpoint.digest)


async def cancel_upload(registry: Registry, endpoint: CancelUpload, call: Call) -> None:
    """Drops the session."""
    await registry.cancel_upload(endpoint.repository, endpoint.upload)
    await call.reply(204)


async def _mount(registry: Registry, endpoint: StartUpload, digest: Digest) -> bool:
    """Whether the blob is here now. What the caller may not read is as good as absent (rule A18)."""
    try:
        await registry.mount_blob(endpoint.repository, digest, source=endpoint.source)
    except (BlobUnknown, NameUnknown, Denied, Unsupported):
        return False
    return True


async def _take_whole(registry: Registry, repository: RepositoryName, digest: Digest, call: Call) -> None:
    _check_size(call.content_length or 0)
    session = await registry.start_upload(repository, algorithm=digest.algorithm)
    try:
        if call.content_length != 0:
            await registry.append_upload(repository, session.id, _received(call, start=0, length=None))
        await registry.finish_upload(repository, session.id, digest)
    except BaseException:
        # The client was never told of the session, so nobody could go on with it.
        with suppress(BlobUploadUnknown):
            await asyncio.shield(registry.cancel_upload(repository, session.id))
        raise


async def _append(registry: Registry, endpoint: AppendUpload | FinishUpload, call: Call) -> UploadStatus:
    chunk = parse_content_range(call.header(b"content-range"))
    announced = call.content_length
    start, length = (chunk.start, chunk.length) if chunk else (None, None)
    if length is not None and announced not in (None, length):
        raise SizeInvalid(
            "Content-Length and Content-Range disagree", detail={"Content-Length": announced, "Content-Range": length}
        )
    _check_size((start or 0) + (length or announced or 0))
    content = _received(call, start=start or 0, length=length)
    status = await registry.append_upload(endpoint.repository, endpoint.upload, content, start=start)
    if status.offset > UPLOAD_LIMIT:
        # Only here is known what earlier requests without Content-Range had brought.
        await registry.cancel_upload(endpoint.repository, endpoint.upload)
    _check_size(status.offset)
    return status


async def _received(call: Call, *, start: int, length: int | None) -> AsyncIterator[bytes]:
    """The body, from byte ``start`` of the blob; exactly ``length`` bytes where that is known."""
    size = 0
    async for chunk in call.body():
        size += len(chunk)
        if length is not None and size > length:
            raise SizeInvalid("more bytes than Content-Range says", detail={"Content-Range": length})
        _check_size(start + size)
        yield chunk
    if length is not None and size < length:
        raise SizeInvalid("fewer bytes than Content-Range says", detail={"Content-Range": length, "received": size})


@asynccontextmanager
async def _session_in_refusal(
    registry: Registry, endpoint: AppendUpload | FinishUpload, call: Call
) -> AsyncIterator[None]:
    """A 416 tells where the session stands, so that the client can go on (spec "Pushing a blob in chunks")."""
    try:
        yield
    except RangeInvalid:
        status = await registry.upload_status(endpoint.repository, endpoint.upload)
        call.error_headers = _session_headers(endpoint.repository, status)
        raise


def _check_size(size: int) -> None:
    if size > UPLOAD_LIMIT:
        raise BlobTooLarge(f"more than {UPLOAD_LIMIT} bytes", detail={"limit": UPLOAD_LIMIT})


def _session_headers(repository: RepositoryName, status: UploadStatus) -> list[Header]:
    upload = header_value(status.id)
    # An empty session says 0-0 as everybody does: docker reads "%d-%d" and fails on an end before its start.
    last = max(status.offset - 1, 0)
    headers = [
        (b"location", b"/v2/%b/blobs/uploads/%b" % (header_value(str(repository)), upload)),
        (b"range", b"0-%d" % last),
        (b"docker-upload-uuid", upload),
    ]
    if status.min_chunk > 0:
        headers.append((b"oci-chunk-min-length", b"%d" % status.min_chunk))
    return headers


async def _reply_created(call: Call, repository: RepositoryName, digest: Digest) -> None:
    text = header_value(str(digest))
    location = b"/v2/%b/blobs/%b" % (header_value(str(repository)), text)
    await call.reply(201, [(b"location", location), (b"docker-content-digest", text)])
