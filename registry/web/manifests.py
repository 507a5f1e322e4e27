"""Manifests over HTTP: the exact bytes under the exact media type, whatever ``Accept`` says.

Law: a tag write under a condition (If-Match, If-None-Match) that we cannot judge fails; it never falls back to
writing without the condition.
"""

from __future__ import annotations

import re
from typing import Final

from moorage.registry.oci import (
    ANY_VALUE,
    MANIFEST_LIMIT,
    Digest,
    DigestInvalid,
    Manifest,
    ManifestTooLarge,
    PreconditionFailed,
    Registry,
    Tag,
    TagCondition,
    read_limited,
)
from moorage.registry.oci.routes import DeleteManifest, GetManifest, HeadManifest, PutManifest
from moorage.registry.web.respond import Call, Header, digest_headers, header_value

__all__ = ["delete_manifest", "get_manifest", "head_manifest", "put_manifest"]

_STRONG_ETAG: Final = re.compile(r'\s*"([^"]*)"\s*')


async def get_manifest(registry: Registry, endpoint: GetManifest, call: Call) -> None:
    """Sends the manifest. A Range header is ignored: RFC 9110 allows it, and containerd sends one and takes 200."""
    manifest = await registry.read_manifest(endpoint.repository, endpoint.reference)
    headers = _headers(manifest.media_type, manifest.digest)
    if call.is_known(manifest.digest):
        await call.reply(304, headers)
    else:
        await call.reply(200, headers, manifest.content)


async def head_manifest(registry: Registry, endpoint: HeadManifest, call: Call) -> None:
    """Sends what a GET would, without the manifest."""
    descriptor = await registry.resolve_manifest(endpoint.repository, endpoint.reference)
    status = 304 if call.is_known(descriptor.digest) else 200
    await call.reply(status, _headers(descriptor.media_type, descriptor.digest), length=descriptor.size)


async def put_manifest(registry: Registry, endpoint: PutManifest, call: Call) -> None:
    """Stores the manifest, and makes the tags of path and query name it."""
    condition = _tag_condition(call)
    manifest = await _receive_manifest(endpoint, call)
    tags = (endpoint.reference, *endpoint.tags) if isinstance(endpoint.reference, Tag) else endpoint.tags
    await registry.push_manifest(endpoint.repository, manifest, tags=tags, condition=condition)
    location = f"/v2/{endpoint.repository}/manifests/{manifest.digest}"
    headers = [
        (b"location", header_value(location)),
        *digest_headers(manifest.digest),
        *((b"oci-tag", header_value(tag.value)) for tag in endpoint.tags),
    ]
    if (subject := manifest.document.subject) is not None:
        # Tells the client that the referrers list needs no fallback tag (spec "Pushing Manifests with Subject").
        headers.append((b"oci-subject", header_value(str(subject.digest))))
    await call.reply(201, headers)


async def delete_manifest(registry: Registry, endpoint: DeleteManifest, call: Call) -> None:
    """Removes a tag, or a manifest with all its tags."""
    if isinstance(endpoint.reference, Tag):
        await registry.delete_tag(endpoint.repository, endpoint.reference)
    else:
        await registry.delete_manifest(endpoint.repository, endpoint.reference)
    await call.reply(202)


async def _receive_manifest(endpoint: PutManifest, call: Call) -> Manifest:
    if (call.content_length or 0) > MANIFEST_LIMIT:
        raise ManifestTooLarge(f"more than {MANIFEST_LIMIT} bytes", detail={"limit": MANIFEST_LIMIT})
    content = await read_limited(call.body(), MANIFEST_LIMIT)
    media_type = (call.header(b"content-type") or "").partition(";")[0].strip()
    wanted = endpoint.reference
    digest = Digest.of(content, wanted.algorithm) if isinstance(wanted, Digest) else Digest.of(content)
    if isinstance(wanted, Digest) and digest != wanted:
        raise DigestInvalid("content has another digest", detail={"digest": str(wanted), "content": str(digest)})
    return Manifest.of(content, media_type or None, digest=digest)


def _tag_condition(call: Call) -> TagCondition:
    """``If-Match: "<digest>"`` and ``If-None-Match: *``, the two conditions that make a tag a register."""
    expected, absent = call.header(b"if-match"), call.header(b"if-none-match")
    if expected is None and absent is None:
        return ANY_VALUE
    if expected is None and absent is not None and absent.strip() == "*":
        return TagCondition(absent=True)
    etag = _STRONG_ETAG.fullmatch(expected or "") if absent is None else None
    if etag is None:
        raise PreconditionFailed('only If-Match: "<digest>" and If-None-Match: * are understood on a push')
    try:
        return TagCondition(digest=Digest.parse(etag[1]))
    except DigestInvalid:
        raise PreconditionFailed("no manifest can have this ETag", detail={"If-Match": etag[1][:256]}) from None


def _headers(media_type: str, digest: Digest) -> list[Header]:
    return [(b"content-type", header_value(media_type)), *digest_headers(digest)]
