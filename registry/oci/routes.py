"""The API as values: a method and a raw URL parse into one ``Endpoint``, and an endpoint builds its URL back.

Law: ``parse(*url(endpoint)) == endpoint``. Server, client and fuzzers share this table. Paths are read from the right,
undecoded, because repository names may contain ``blobs``, ``manifests`` or ``tags``; the only escape understood is
``%3A`` for the colon of a digest, every other one is refused (rule A8). Unknown query parameters (such as containerd's
``ns``, which a registry may ignore) are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import assert_never
from urllib.parse import parse_qsl, quote

from moorage.registry.oci.digest import ALGORITHMS, Digest
from moorage.registry.oci.endpoints import (
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
)
from moorage.registry.oci.errors import (
    BlobUploadUnknown,
    DigestInvalid,
    NameInvalid,
    NotFound,
    PaginationInvalid,
    TooManyTags,
    Unsupported,
)
from moorage.registry.oci.names import RepositoryName, Tag, parse_tag_or_digest

__all__ = [
    "MAX_PAGE",
    "MAX_TAGS",
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
    "parse",
    "url",
]

MAX_PAGE = 1000
"""Most entries of one page; a larger ``n`` is read as this (rule A2)."""

MAX_TAGS = 40
"""Most ``tag=`` parameters of one manifest push: 40 of the longest fit a request line of 8 KiB."""


_Query = Mapping[str, list[str]]
_UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{1,4096}")
_NUMBER = re.compile(r"[0-9]{1,19}")
_COLON = re.compile("%3a", re.IGNORECASE)


def parse(method: str, path: str, query: str = "") -> Endpoint:
    """The endpoint that a request means.

    Args:
        path: the raw path, undecoded, starting with ``/v2``.
        query: the raw query string.

    Raises:
        NameInvalid, TagInvalid, DigestInvalid, PaginationInvalid, TooManyTags: which part is wrong.
        BlobUploadUnknown: the upload id cannot be one of ours.
        Unsupported: the path exists, the method does not; the detail lists those that do.
        NotFound: no such path.
    """
    if path in ("/v2/", "/v2"):
        return _pick(method, {"GET": Ping, "HEAD": Ping})
    if not path.startswith("/v2/"):
        raise NotFound(detail={"path": path[:256]})
    values = _parse_query(query) if query else {}
    rest = path[4:]
    if rest == "_catalog":
        return _pick(method, {"GET": lambda: _list_repositories(values)})
    head, _, last = rest.rpartition("/")
    name, _, kind = head.rpartition("/")
    if kind == "manifests":
        return _parse_manifest(method, name, last, values)
    if kind == "blobs" and last != "uploads":
        return _parse_blob(method, name, last)
    if kind == "uploads" and name.endswith("/blobs"):
        return _parse_upload(method, name[:-6], last, values)
    if kind == "blobs":
        return _parse_upload(method, name, "", values)
    if kind == "tags" and last == "list":
        return _pick(method, {"GET": lambda: _list_tags(name, values)})
    if kind == "referrers":
        return _pick(method, {"GET": lambda: _list_referrers(name, last, values)})
    if "%" in path or "\\" in path or "//" in path:
        raise NameInvalid("escapes and empty components are not allowed in a path", detail={"path": path[:256]})
    raise NotFound(detail={"path": path[:256]})


def _pick(method: str, choices: Mapping[str, Callable[[], Endpoint]]) -> Endpoint:
    choice = choices.get(method)
    if choice is None:
        raise Unsupported(f"method not allowed here, only {', '.join(choices)}", detail={"allow": list(choices)})
    return choice()


def _parse_manifest(method: str, name: str, last: str, values: _Query) -> Endpoint:
    repository, reference = RepositoryName.parse(name), parse_tag_or_digest(_unescape(last))
    return _pick(
        method,
        {
            "GET": lambda: GetManifest(repository, reference),
            "HEAD": lambda: HeadManifest(repository, reference),
            "PUT": lambda: PutManifest(repository, reference, _tags(values)),
            "DELETE": lambda: DeleteManifest(repository, reference),
        },
    )


def _parse_blob(method: str, name: str, last: str) -> Endpoint:
    repository, digest = RepositoryName.parse(name), Digest.parse(_unescape(last))
    return _pick(
        method,
        {
            "GET": lambda: GetBlob(repository, digest),
            "HEAD": lambda: HeadBlob(repository, digest),
            "DELETE": lambda: DeleteBlob(repository, digest),
        },
    )


def _parse_upload(method: str, name: str, upload: str, values: _Query) -> Endpoint:
    repository = RepositoryName.parse(name)
    if not upload:
        return _pick(method, {"POST": lambda: _start_upload(repository, values)})
    if _UPLOAD_ID.fullmatch(upload) is None:
        raise BlobUploadUnknown(detail={"upload": upload[:256]})
    return _pick(
        method,
        {
            "GET": lambda: GetUpload(repository, upload),
            "PATCH": lambda: AppendUpload(repository, upload),
            "PUT": lambda: FinishUpload(repository, upload, _required_digest(values)),
            "DELETE": lambda: CancelUpload(repository, upload),
        },
    )


def _start_upload(repository: RepositoryName, values: _Query) -> StartUpload:
    digest, mount, source = (_first(values, key) for key in ("digest", "mount", "from"))
    algorithm = _first(values, "digest-algorithm")
    if algorithm is not None and algorithm not in ALGORITHMS:
        raise DigestInvalid(f"unsupported algorithm (supported: {', '.join(ALGORITHMS)})", detail={"given": algorithm})
    return StartUpload(
        repository,
        Digest.parse(digest) if digest else None,
        Digest.parse(mount) if mount else None,
        RepositoryName.parse(source) if source and mount else None,
        algorithm,
    )


def _list_repositories(values: _Query) -> ListRepositories:
    last = _first(values, "last")
    return ListRepositories(_limit(values), RepositoryName.parse(last) if last else None)


def _list_tags(name: str, values: _Query) -> ListTags:
    last = _first(values, "last")
    return ListTags(RepositoryName.parse(name), _limit(values), Tag.parse(last).value if last else "")


def _list_referrers(name: str, digest: str, values: _Query) -> ListReferrers:
    last = _first(values, "last")
    return ListReferrers(
        RepositoryName.parse(name),
        Digest.parse(_unescape(digest)),
        _first(values, "artifactType") or None,
        _limit(values),
        str(Digest.parse(last)) if last else "",
    )


def _tags(values: _Query) -> tuple[Tag, ...]:
    raw = values.get("tag", [])
    if len(raw) > MAX_TAGS:
        raise TooManyTags(f"at most {MAX_TAGS} tags in one request", detail={"tags": len(raw)})
    return tuple(dict.fromkeys(Tag.parse(tag) for tag in raw))


def _required_digest(values: _Query) -> Digest:
    digest = _first(values, "digest")
    if not digest:
        raise DigestInvalid("the closing request needs ?digest=")
    return Digest.parse(digest)


def _limit(values: _Query) -> int | None:
    raw = _first(values, "n")
    if raw is None:
        return None
    if _NUMBER.fullmatch(raw) is None:
        raise PaginationInvalid(detail={"n": raw[:64]})
    return min(int(raw), MAX_PAGE)


def _first(values: _Query, key: str) -> str | None:
    return values[key][0] if key in values else None


def _parse_query(query: str) -> _Query:
    values: dict[str, list[str]] = {}
    for key, value in parse_qsl(query, keep_blank_values=True, errors="replace"):
        values.setdefault(key, []).append(value)
    return values


def _unescape(segment: str) -> str:
    return _COLON.sub(":", segment) if "%" in segment else segment


def url(endpoint: Endpoint) -> tuple[str, str, str]:
    """Method, raw path and raw query of an endpoint: what ``parse`` takes."""
    match endpoint:
        case Ping():
            return "GET", "/v2/", ""
        case ListRepositories(limit, last):
            return "GET", "/v2/_catalog", _build_query(n=limit, last=last)
        case GetBlob(name, digest):
            return "GET", f"/v2/{name}/blobs/{digest}", ""
        case HeadBlob(name, digest):
            return "HEAD", f"/v2/{name}/blobs/{digest}", ""
        case DeleteBlob(name, digest):
            return "DELETE", f"/v2/{name}/blobs/{digest}", ""
        case GetManifest(name, reference):
            return "GET", f"/v2/{name}/manifests/{reference}", ""
        case HeadManifest(name, reference):
            return "HEAD", f"/v2/{name}/manifests/{reference}", ""
        case PutManifest(name, reference, tags):
            return "PUT", f"/v2/{name}/manifests/{reference}", "&".join(f"tag={tag}" for tag in tags)
        case DeleteManifest(name, reference):
            return "DELETE", f"/v2/{name}/manifests/{reference}", ""
        case StartUpload(name, digest, mount, source, algorithm):
            query = _build_query(digest=digest, mount=mount, **{"from": source, "digest-algorithm": algorithm})
            return "POST", f"/v2/{name}/blobs/uploads/", query
        case _:
            return _url_of_rest(endpoint)


def _url_of_rest(endpoint: GetUpload | AppendUpload | FinishUpload | CancelUpload | ListTags | ListReferrers) -> (
    tuple[str, str, str]
):  # fmt: skip
    match endpoint:
        case GetUpload(name, upload):
            return "GET", f"/v2/{name}/blobs/uploads/{upload}", ""
        case AppendUpload(name, upload):
            return "PATCH", f"/v2/{name}/blobs/uploads/{upload}", ""
        case FinishUpload(name, upload, digest):
            return "PUT", f"/v2/{name}/blobs/uploads/{upload}", _build_query(digest=digest)
        case CancelUpload(name, upload):
            return "DELETE", f"/v2/{name}/blobs/uploads/{upload}", ""
        case ListTags(name, limit, last):
            return "GET", f"/v2/{name}/tags/list", _build_query(n=limit, last=last or None)
        case ListReferrers(name, subject, artifact_type, limit, last):
            query = _build_query(artifactType=artifact_type, n=limit, last=last or None)
            return "GET", f"/v2/{name}/referrers/{subject}", query
        case _:
            assert_never(endpoint)


def _build_query(**values: object) -> str:
    return "&".join(f"{key}={quote(str(value), safe='/:')}" for key, value in values.items() if value is not None)
