"""What a store writes down about an open upload: a small value that can tell whether it is whole.

Law: a record that was torn, by a power cut say, reads as no record.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

import msgspec
from moorage.storage_backends.base import UPLOADS
from moorage.storage_backends.errors import UploadNotFound

__all__ = ["UploadRecord", "is_upload", "record_key"]

_MAX_NOTE: Final = 2000
_UPLOAD: Final = re.compile(r"[0-9a-f]{32}")


class UploadRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the bytes will appear, how many there are, and the owner's note about exactly these."""

    key: str
    offset: int
    note: bytes

    def encode(self) -> bytes:
        """The record as one line of JSON, with a check over its fields; it fits a page.

        Raises:
            ValueError: the note has more than 2,000 bytes.
        """
        if len(self.note) > _MAX_NOTE:
            raise ValueError(f"a note of {len(self.note)} bytes")
        fields = {"key": self.key, "offset": self.offset, "note": base64.b64encode(self.note).decode()}
        return msgspec.json.encode({**fields, "check": self._check()}) + b"\n"

    @classmethod
    def decode(cls, upload: str, raw: bytes) -> UploadRecord:
        """The record that ``encode`` wrote.

        Raises:
            UploadNotFound: these bytes are not a whole record.
        """
        try:
            stored = msgspec.json.decode(raw, type=_Stored)
        except (msgspec.DecodeError, ValueError) as error:
            raise UploadNotFound(f"the record of upload {upload} is torn") from error
        record = cls(key=stored.key, offset=stored.offset, note=stored.note)
        if record._check() != stored.check:
            raise UploadNotFound(f"the record of upload {upload} is torn")
        return record

    def _check(self) -> str:
        text = b"%s\n%d\n%s" % (self.key.encode(), self.offset, self.note)
        return hashlib.blake2b(text, digest_size=8).hexdigest()


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    offset: int
    note: bytes
    check: str


def is_upload(upload: str) -> bool:
    """Whether ``upload`` looks like the id of one."""
    return _UPLOAD.fullmatch(upload) is not None


def record_key(upload: str) -> str:
    """The key of an upload's record.

    Raises:
        UploadNotFound: no store ever gave out such an id.
    """
    if not is_upload(upload):
        raise UploadNotFound(f"not the id of an upload: {upload[:100]!r}")
    return UPLOADS + upload
