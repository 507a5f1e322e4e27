"""Errors travel over the wire and come back as the same class."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moorage.registry.oci import (
    BlobReferenced,
    BlobUnknown,
    InternalError,
    ManifestInvalid,
    ManifestTooLarge,
    NotFound,
    OciError,
    TagInvalid,
    TooManyRequests,
    TooManyTags,
    Unauthorized,
    Unsupported,
    error_from_wire,
)


def _kinds(cls: type[OciError]) -> Iterator[type[OciError]]:
    for kind in cls.__subclasses__():
        if kind.__module__ == OciError.__module__ and "code" in vars(kind):
            yield kind
        yield from _kinds(kind)


_CLASSES: list[type[OciError]] = sorted({*_kinds(OciError), BlobReferenced}, key=lambda cls: cls.__name__)
"""Every error with a code of its own; the client's errors never cross the wire."""


@pytest.mark.parametrize("cls", _CLASSES)
def test_an_error_survives_the_wire(cls: type[OciError]) -> None:
    """Status, code, message and detail rebuild the class that was raised."""
    detail = {"manifest": "sha256:x"} if cls is BlobReferenced else {"field": "x"}
    entry = cls("why", detail=detail).to_json()
    rebuilt = error_from_wire(cls.status, entry["code"], entry["message"], detail=entry["detail"])
    assert (type(rebuilt), rebuilt.message, rebuilt.detail) == (cls, "why", detail)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        pytest.param(413, "MANIFEST_INVALID", ManifestTooLarge, id="pair tells the size from the shape"),
        pytest.param(400, "MANIFEST_INVALID", ManifestInvalid, id="pair tells the shape from the size"),
        pytest.param(414, "TAG_INVALID", TooManyTags, id="pair tells too many tags from a bad one"),
        pytest.param(400, "TAG_INVALID", TagInvalid, id="pair tells a bad tag from too many"),
        pytest.param(400, "BLOB_UNKNOWN", BlobUnknown, id="code wins over an odd status"),
        pytest.param(404, None, NotFound, id="HEAD has no body"),
        pytest.param(405, "UNSUPPORTED", Unsupported, id="unsupported without a manifest"),
        pytest.param(401, None, Unauthorized, id="status alone"),
        pytest.param(429, "SLOW_DOWN", TooManyRequests, id="unknown code, known status"),
        pytest.param(418, "TEAPOT", InternalError, id="unknown to us"),
    ],
)
def test_an_answer_of_any_registry_becomes_an_error(status: int, code: str | None, expected: type[OciError]) -> None:
    """The pair decides, then the code, then the status."""
    assert type(error_from_wire(status, code, "m")) is expected


def test_every_error_says_something_without_being_told() -> None:
    """No class leaves the message empty or the status outside the errors."""
    for cls in _CLASSES:
        assert cls().message
        assert 400 <= cls.status <= 599
        assert cls.code == cls.code.upper()
