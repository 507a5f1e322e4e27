"""What the headers of an answer say, believed as far as it can be used."""

from __future__ import annotations

from moorage.puller.errors import BadAnswer
from moorage.puller.origins import redact
from moorage.puller.transport import Answer
from moorage.registry.oci import MAX_SIZE, Digest, DigestInvalid
from moorage.registry.oci.media_types import OCTET_STREAM

__all__ = ["digest_of", "is_range", "length_of", "type_of"]

_VAGUE_TYPES = frozenset({"", "application/json", "text/plain", OCTET_STREAM})


def is_range(answer: Answer, start: int, stop: int) -> bool:
    """Whether the answer is the range asked for; False: the registry ignored it and sends the whole (status 200).

    Raises:
        BadAnswer: it is another range.
    """
    if answer.status != 206:
        return False
    if not (answer.header("Content-Range") or "").startswith(f"bytes {start}-{stop - 1}/"):
        raise BadAnswer(f"{redact(answer.url)}: sent another range than bytes {start}-{stop - 1}")
    return True


def length_of(answer: Answer) -> int:
    """The length of the content, bytes.

    Raises:
        BadAnswer: the answer does not say it.
    """
    size = answer.content_length
    if size is None or size > MAX_SIZE:
        raise BadAnswer(f"{redact(answer.url)}: answered without a usable Content-Length")
    return size


def digest_of(answer: Answer) -> Digest | None:
    """The digest that the answer names, if it does.

    Raises:
        BadAnswer: it names what is none.
    """
    raw = answer.header("Docker-Content-Digest")
    try:
        return Digest.parse(raw) if raw else None
    except DigestInvalid as exc:
        raise BadAnswer(f"{redact(answer.url)}: answered with an unusable digest: {exc.message}") from exc


def type_of(answer: Answer) -> str | None:
    """The media type that the answer declares; None where it says nothing of use."""
    media_type = (answer.header("Content-Type") or "").partition(";")[0].strip().lower()
    return None if media_type in _VAGUE_TYPES else media_type
