"""What is written down about an open upload: one small object, changed by compare-and-swap only.

The upload's bytes are, in this order: the parts of a multipart upload to the final key, all of ``PART`` bytes; a tail,
shorter than a part, as write-once pieces of their own; up to ``INLINE`` bytes in the record itself. The tail may be
there a second time, as the part that ends the object if the upload is committed in this very state. A number of a part
is reserved before it is used and never given to anybody else, so a writer who lost the upload without knowing it cannot
touch what the next one sends.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from moorage.storage_backends.errors import UploadNotFound

__all__ = ["INLINE", "PART", "Held", "Part", "Piece", "Record"]

PART: Final = 12 * 1024 * 1024
"""Bytes of every part but the last. Equal, because R2 wants that; 10,000 of them hold 117 GiB."""

INLINE: Final = 32 * 1024
"""Most bytes that are kept in the record: every config of an image, and a push of one is two requests shorter each."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part that S3 has. ``size``: bytes."""

    number: int
    etag: str
    size: int


class Piece(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of the tail. ``size``: bytes."""

    key: str
    size: int


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state of an upload.

    ``state``: ``done`` and ``gone`` are the end: what is left of the upload is about to be removed, the record last.
    ``multipart``: S3's id of it, once there is one; ``opening``: somebody was about to make one, and may have left it
    behind; ``assembling``: the object may be there already, of a commit that broke off; ``next``: the first number that
    no part may have yet; ``inline``: the last bytes of the tail; ``last``: the whole tail as a part, if it was sent;
    ``nonce``: another with every change, so that no two states are the same bytes.
    """

    key: str
    note: bytes
    state: Literal["open", "sealed", "done", "gone"] = "open"
    multipart: str | None = None
    opening: bool = False
    assembling: bool = False
    next: int = 1
    parts: tuple[Part, ...] = ()
    tail: tuple[Piece, ...] = ()
    inline: bytes = b""
    last: Part | None = None
    nonce: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nobody may go on with it."""
        return self.state in ("done", "gone")

    @property
    def sent(self) -> int:
        """Bytes in parts."""
        return sum(part.size for part in self.parts)

    @property
    def offset(self) -> int:
        """Bytes taken so far."""
        return self.sent + sum(piece.size for piece in self.tail) + len(self.inline)

    def encode(self) -> bytes:
        """The record as JSON, with a nonce of its own."""
        return msgspec.json.encode(msgspec.structs.replace(self, nonce=secrets.token_hex(8)))

    @classmethod
    def decode(cls, upload: str, raw: bytes) -> Record:
        """The record that ``encode`` wrote.

        Raises:
            UploadNotFound: these bytes are no record.
        """
        try:
            return msgspec.json.decode(raw, type=cls)
        except (msgspec.DecodeError, ValueError) as exc:
            raise UploadNotFound(f"the record of upload {upload} cannot be read") from exc


@dataclass(frozen=True, slots=True)
class Held:
    """A record as it was read: ``version`` is what a swap expects, ``modified`` its Unix time."""

    record: Record
    version: str
    modified: float
