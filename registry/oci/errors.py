"""Errors of the distribution protocol: one class per code, the same on both sides of the wire.

Rule: nothing else decides a status code. The server renders an ``OciError``; the client rebuilds the same class
from the answer, so ``except BlobUnknown`` holds across the network.

    MoorageError (the client adds its own below it)
    └── OciError
        ├── NotFound (BlobUnknown  BlobUploadUnknown  ManifestUnknown  NameUnknown)
        ├── BlobUploadInvalid  ManifestInvalid  ManifestTooLarge  ManifestBlobUnknown
        ├── NameInvalid  TagInvalid  DigestInvalid (DigestMismatch)  SizeInvalid  BlobTooLarge  PaginationInvalid
        ├── RangeInvalid  PreconditionFailed  TooManyTags
        ├── Unauthorized  Denied  Unsupported (BlobReferenced)  TooManyRequests
        └── Unavailable  StorageFull  InternalError
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "BlobReferenced",
    "BlobTooLarge",
    "BlobUnknown",
    "BlobUploadInvalid",
    "BlobUploadUnknown",
    "Denied",
    "DigestInvalid",
    "DigestMismatch",
    "InternalError",
    "ManifestBlobUnknown",
    "ManifestInvalid",
    "ManifestTooLarge",
    "ManifestUnknown",
    "MoorageError",
    "NameInvalid",
    "NameUnknown",
    "NotFound",
    "OciError",
    "PaginationInvalid",
    "PreconditionFailed",
    "RangeInvalid",
    "SizeInvalid",
    "StorageFull",
    "TagInvalid",
    "TooManyRequests",
    "TooManyTags",
    "Unauthorized",
    "Unavailable",
    "Unsupported",
    "error_from_wire",
]


class MoorageError(Exception):
    """Whatever fails for a cause outside of Moorage. Other exceptions are defects, or the operating system's."""


class OciError(MoorageError):
    """A refusal that the distribution protocol has a word for.

    Attributes:
        code: the protocol's error code, e.g. ``BLOB_UNKNOWN``.
        status: the HTTP status that goes with it.
        message: one sentence for people.
        detail: what exactly was wrong, JSON-serialisable, or None.
    """

    code: ClassVar[str] = "UNKNOWN"
    status: ClassVar[int] = 500
    summary: ClassVar[str] = "unknown error"

    def __init__(self, message: str | None = None, *, detail: object = None) -> None:
        self.message = message or self.summary
        self.detail = detail
        super().__init__(self.message)

    def to_json(self) -> dict[str, Any]:
        """The entry of the ``errors`` list (spec "Error Codes")."""
        return {"code": self.code, "message": self.message, "detail": self.detail}


class NotFound(OciError):
    """What was asked for does not exist; itself: no endpoint of the API has this path."""

    code, status, summary = "NOT_FOUND", 404, "no such endpoint"


class BlobUnknown(NotFound):
    """The repository has no such blob."""

    code, status, summary = "BLOB_UNKNOWN", 404, "blob unknown to repository"


class BlobUploadUnknown(NotFound):
    """The upload session does not exist in this repository: finished, cancelled, expired or never opened."""

    code, status, summary = "BLOB_UPLOAD_UNKNOWN", 404, "blob upload unknown to repository"


class BlobUploadInvalid(OciError):
    """The upload cannot go on as asked."""

    code, status, summary = "BLOB_UPLOAD_INVALID", 400, "blob upload invalid"


class ManifestUnknown(NotFound):
    """The repository has no manifest under this tag or digest."""

    code, status, summary = "MANIFEST_UNKNOWN", 404, "manifest unknown to repository"


class ManifestInvalid(OciError):
    """The manifest breaks a rule of the image specification; the detail names which."""

    code, status, summary = "MANIFEST_INVALID", 400, "manifest invalid"


class ManifestTooLarge(OciError):
    """The manifest is larger than this registry takes (4 MiB; spec "Pushing Manifests", rule A1)."""

    code, status, summary = "MANIFEST_INVALID", 413, "manifest larger than the limit"


class ManifestBlobUnknown(OciError):
    """The manifest references a blob or manifest that the repository does not have."""

    code, status, summary = "MANIFEST_BLOB_UNKNOWN", 404, "manifest references content unknown to repository"


class NameInvalid(OciError):
    """The repository name or the path breaks the grammar."""

    code, status, summary = "NAME_INVALID", 400, "invalid repository name"


class NameUnknown(NotFound):
    """The registry has no such repository."""

    code, status, summary = "NAME_UNKNOWN", 404, "repository name not known to registry"


class TagInvalid(OciError):
    """The tag breaks the grammar."""

    code, status, summary = "TAG_INVALID", 400, "invalid tag"


class DigestInvalid(OciError):
    """The digest is malformed, of an unsupported algorithm, or not the digest of the content."""

    code, status, summary = "DIGEST_INVALID", 400, "invalid digest"


class DigestMismatch(DigestInvalid):
    """The content is not what its digest names."""

    summary = "content does not have its digest"


class SizeInvalid(OciError):
    """The length given is not the length of the content."""

    code, status, summary = "SIZE_INVALID", 400, "length does not match the content"


class BlobTooLarge(OciError):
    """The blob is larger than this registry takes (100 GiB)."""

    code, status, summary = "SIZE_INVALID", 413, "blob larger than the limit"


class PaginationInvalid(OciError):
    """``n`` is not a number."""

    code, status, summary = "PAGINATION_NUMBER_INVALID", 400, "invalid number of results requested"


class RangeInvalid(OciError):
    """A range cannot be satisfied, or a chunk does not start where the upload stopped."""

    code, status, summary = "RANGE_INVALID", 416, "invalid range"


class PreconditionFailed(OciError):
    """The tag does not have the value that the request expected (If-Match, If-None-Match)."""

    code, status, summary = "PRECONDITION_FAILED", 412, "tag has another value"


class TooManyTags(OciError):
    """More tags in one request than this registry takes (spec end-7b: 414)."""

    code, status, summary = "TAG_INVALID", 414, "too many tags in one request"


class Unauthorized(OciError):
    """Credentials are missing or wrong."""

    code, status, summary = "UNAUTHORIZED", 401, "authentication required"


class Denied(OciError):
    """The credentials do not allow this."""

    code, status, summary = "DENIED", 403, "requested access to the resource is denied"


class Unsupported(OciError):
    """The operation is not supported, or switched off."""

    code, status, summary = "UNSUPPORTED", 405, "the operation is unsupported"


class BlobReferenced(Unsupported):
    """The blob cannot be deleted: a manifest of the repository needs it, which the detail names (DESIGN 4)."""

    summary = "blob is referenced by a manifest"


class TooManyRequests(OciError):
    """Too many requests; the answer says when to come back."""

    code, status, summary = "TOOMANYREQUESTS", 429, "too many requests"


class Unavailable(OciError):
    """The storage cannot answer just now; try again."""

    code, status, summary = "UNAVAILABLE", 503, "storage is unavailable, try again"


class StorageFull(OciError):
    """The storage has no room left for this write; reads go on."""

    code, status, summary = "STORAGE_FULL", 507, "storage is full"


class InternalError(OciError):
    """A defect or an unexpected fault of the registry."""

    code, status, summary = "UNKNOWN", 500, "internal error"


_CLASSES: tuple[type[OciError], ...] = (
    BlobUnknown, BlobUploadUnknown, BlobUploadInvalid, ManifestUnknown, ManifestInvalid,
    ManifestTooLarge, ManifestBlobUnknown, NameInvalid, NameUnknown, TagInvalid, DigestInvalid, SizeInvalid,
    BlobTooLarge, PaginationInvalid, RangeInvalid, PreconditionFailed, TooManyTags, Unauthorized, Denied, Unsupported,
    NotFound, TooManyRequests, Unavailable, StorageFull, InternalError,
)  # fmt: skip
_BY_CODE_AND_STATUS: Mapping[tuple[str, int], type[OciError]] = {(c.code, c.status): c for c in reversed(_CLASSES)}
_BY_CODE: Mapping[str, type[OciError]] = {c.code: c for c in reversed(_CLASSES)}
_BY_STATUS: Mapping[int, type[OciError]] = {
    400: BlobUploadInvalid, 401: Unauthorized, 403: Denied, 404: NotFound, 405: Unsupported, 412: PreconditionFailed,
    413: ManifestTooLarge, 414: TooManyTags, 416: RangeInvalid, 429: TooManyRequests, 503: Unavailable,
    507: StorageFull,
}  # fmt: skip


def error_from_wire(status: int, code: str | None, message: str, *, detail: object = None) -> OciError:
    """The error that a registry meant by ``status`` and the first entry of its ``errors`` list.

    The pair decides; then the code alone (peers disagree on statuses); then the status (HEAD has no body).
    """
    if code == BlobReferenced.code and isinstance(detail, dict) and "manifest" in detail:
        return BlobReferenced(message, detail=detail)
    known = _BY_CODE_AND_STATUS.get((code or "", status)) or _BY_CODE.get(code or "") or _BY_STATUS.get(status)
    return (known or InternalError)(message, detail=detail)
