"""The endpoints of the distribution API, one frozen value each: what a request asks for, after all parsing.

Law: handlers, clients and wrappers match on these; nobody looks at a method or a path.
"""

from __future__ import annotations

from moorage.registry.oci.digest import Digest
from moorage.registry.oci.names import RepositoryName, Tag, TagOrDigest
from moorage.registry.oci.values import dataclass

__all__ = [
    "AppendUpload",
    "CancelUpload",
    "DeleteBlob",
    "DeleteManifest",
    "Endpoint",
    "FinishUpload",
    "GetBlob",
    "GetManifest",
    "GetUpload",
    "HeadBlob",
    "HeadManifest",
    "ListReferrers",
    "ListRepositories",
    "ListTags",
    "Ping",
    "PutManifest",
    "StartUpload",
]


@dataclass(frozen=True, slots=True)
class Ping:
    """``GET /v2/``: is this a registry, and may I come in?"""


@dataclass(frozen=True, slots=True)
class ListRepositories:
    """``GET /v2/_catalog``."""

    limit: int | None = None
    last: RepositoryName | None = None


@dataclass(frozen=True, slots=True)
class GetBlob:
    """``GET /v2/<name>/blobs/<digest>`` (end-2)."""

    repository: RepositoryName
    digest: Digest


@dataclass(frozen=True, slots=True)
class HeadBlob:
    """``HEAD /v2/<name>/blobs/<digest>`` (end-2)."""

    repository: RepositoryName
    digest: Digest


@dataclass(frozen=True, slots=True)
class DeleteBlob:
    """``DELETE /v2/<name>/blobs/<digest>`` (end-10)."""

    repository: RepositoryName
    digest: Digest


@dataclass(frozen=True, slots=True)
class GetManifest:
    """``GET /v2/<name>/manifests/<reference>`` (end-3)."""

    repository: RepositoryName
    reference: TagOrDigest


@dataclass(frozen=True, slots=True)
class HeadManifest:
    """``HEAD /v2/<name>/manifests/<reference>`` (end-3)."""

    repository: RepositoryName
    reference: TagOrDigest


@dataclass(frozen=True, slots=True)
class PutManifest:
    """``PUT /v2/<name>/manifests/<reference>`` (end-7), with ``?tag=`` by digest (end-7b)."""

    repository: RepositoryName
    reference: TagOrDigest
    tags: tuple[Tag, ...] = ()


@dataclass(frozen=True, slots=True)
class DeleteManifest:
    """``DELETE /v2/<name>/manifests/<reference>`` (end-9)."""

    repository: RepositoryName
    reference: TagOrDigest


@dataclass(frozen=True, slots=True)
class StartUpload:
    """``POST /v2/<name>/blobs/uploads/``: a session (end-4a), a whole blob (end-4b, ``digest``) or a mount (end-11)."""

    repository: RepositoryName
    digest: Digest | None = None
    mount: Digest | None = None
    source: RepositoryName | None = None
    algorithm: str | None = None


@dataclass(frozen=True, slots=True)
class GetUpload:
    """``GET /v2/<name>/blobs/uploads/<id>`` (end-13)."""

    repository: RepositoryName
    upload: str


@dataclass(frozen=True, slots=True)
class AppendUpload:
    """``PATCH /v2/<name>/blobs/uploads/<id>`` (end-5)."""

    repository: RepositoryName
    upload: str


@dataclass(frozen=True, slots=True)
class FinishUpload:
    """``PUT /v2/<name>/blobs/uploads/<id>?digest=`` (end-6)."""

    repository: RepositoryName
    upload: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class CancelUpload:
    """``DELETE /v2/<name>/blobs/uploads/<id>`` (end-14)."""

    repository: RepositoryName
    upload: str


@dataclass(frozen=True, slots=True)
class ListTags:
    """``GET /v2/<name>/tags/list`` (end-8)."""

    repository: RepositoryName
    limit: int | None = None
    last: str = ""


@dataclass(frozen=True, slots=True)
class ListReferrers:
    """``GET /v2/<name>/referrers/<digest>`` (end-12). ``last``: where the page before ended."""

    repository: RepositoryName
    subject: Digest
    artifact_type: str | None = None
    limit: int | None = None
    last: str = ""


Endpoint = (
    Ping
    | ListRepositories
    | GetBlob
    | HeadBlob
    | DeleteBlob
    | GetManifest
    | HeadManifest
    | PutManifest
    | DeleteManifest
    | StartUpload
    | GetUpload
    | AppendUpload
    | FinishUpload
    | CancelUpload
    | ListTags
    | ListReferrers
)
