"""The record of an upload knows whether it is whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.storage_backends.errors import UploadNotFound
from moorage.storage_backends.upload_record import UploadRecord

UPLOAD = "0" * 32
_records = st.builds(
    UploadRecord,
    key=st.text("abc/-", min_size=1, max_size=30),
    offset=st.integers(0, 2**50),
    note=st.binary(max_size=200),
)


@given(_records, st.integers(0, 40))
def test_a_record_is_read_as_it_was_written(record: UploadRecord, padding: int) -> None:
    """Also where it stands over a longer one, blanks behind it."""
    assert UploadRecord.decode(UPLOAD, record.encode().ljust(len(record.encode()) + padding)) == record


@given(_records, st.data())
def test_a_torn_record_is_none(record: UploadRecord, data: st.DataObject) -> None:
    """Cut anywhere, or with the head of one and the tail of another, it is no record."""
    raw = record.encode()
    cut = data.draw(st.integers(0, len(raw) - 2))
    other = data.draw(_records).encode()
    for torn in (raw[:cut], raw[:cut] + bytes(len(raw) - cut), other[:cut] + raw[cut:]):
        if torn.rstrip() not in (raw.rstrip(), other.rstrip()):
            with pytest.raises(UploadNotFound):
                UploadRecord.decode(UPLOAD, torn)


def test_a_note_has_at_most_2000_bytes() -> None:
    """A record fits a page, in which nobody is interrupted."""
    assert len(UploadRecord(key="k" * 1024, offset=2**60, note=b"x" * 2000).encode()) <= 4096
    with pytest.raises(ValueError, match="2001 bytes"):
        UploadRecord(key="k", offset=0, note=b"x" * 2001).encode()
