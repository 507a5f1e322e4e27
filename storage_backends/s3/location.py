"""Where a bucket is and how it wants to be spoken to: ``s3://BUCKET/PREFIX?endpoint=...&region=...``.

Rule: nothing is guessed. An option that nobody knows is refused, and secrets have no place in a URL: credentials come
from wherever boto3 finds them (environment, files, instance roles, web identity).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from moorage.storage_backends.base import check_key
from moorage.storage_backends.errors import KeyInvalid, StorageError

__all__ = ["Location"]

_ADDRESSING = ("auto", "path", "virtual")
_ENCRYPTION = ("AES256", "aws:kms", "aws:kms:dsse")


@dataclass(frozen=True, slots=True)
class Location:
    """A prefix of a bucket.

    ``endpoint``: URL of a server that is not AWS. ``public_endpoint``: how clients reach that server, for presigned
    URLs; what stands between must leave the Host header as it is, because signatures cover it.
    ``addressing``: whether the bucket stands in the path or the host.
    ``sse``: how objects are encrypted at rest, ``kms_key`` with which key.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    public_endpoint: str | None = None
    region: str | None = None
    addressing: str = "auto"
    sse: str | None = None
    kms_key: str | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """The location that ``url`` names.

        Raises:
            StorageError: it is not well written; the message says what is wrong.
        """
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.fragment:
            raise StorageError(f"not a bucket: write s3://BUCKET/PREFIX, without user or password ({_bare(url)})")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        known = {field.name for field in fields(cls)} - {"bucket", "prefix"}
        for name, value in options.items():
            if name not in known or not value:
                options_known = ", ".join(sorted(known))
                raise StorageError(f"s3://{parts.netloc}: unknown or empty option {name!r} (known: {options_known})")
        location = cls(parts.netloc, _prefix(parts.path), **options)
        location._check()
        return location

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}" + (f" at {self.endpoint}" if self.endpoint else "")

    @property
    def encryption(self) -> dict[str, Any]:
        """The arguments of every request that makes an object."""
        arguments = {"ServerSideEncryption": self.sse, "SSEKMSKeyId": self.kms_key}
        return {name: value for name, value in arguments.items() if value}

    def _check(self) -> None:
        if self.addressing not in _ADDRESSING:
            raise StorageError(f"{self}: addressing is one of {', '.join(_ADDRESSING)}")
        if self.sse not in (None, *_ENCRYPTION):
            raise StorageError(f"{self}: sse is one of {', '.join(_ENCRYPTION)}")
        if self.kms_key and not str(self.sse).startswith("aws:kms"):
            raise StorageError(f"{self}: kms_key goes with sse=aws:kms")
        for name in ("endpoint", "public_endpoint"):
            if (url := getattr(self, name)) and not _is_web(url):
                raise StorageError(f"{self}: {name} is an http or https URL")


def _is_web(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _prefix(path: str) -> str:
    """The path as a prefix of keys: nothing, or components that each end with a slash."""
    bare = unquote(path).strip("/")
    try:
        return f"{check_key(bare)}/" if bare else ""
    except KeyInvalid as exc:
        raise StorageError(f"a prefix has components of letters, digits and !._=+-: {exc}") from None


def _bare(url: str) -> str:
    return url.partition("?")[0].rpartition("@")[2][:200]
