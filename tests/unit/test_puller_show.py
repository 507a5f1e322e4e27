"""Plain lines and JSON lines: every event is shown, or left out on purpose; nothing from outside is obeyed."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from moorage.puller.events import (
    BlobDone,
    BlobProgress,
    BlobSkipped,
    BlobStarted,
    Event,
    Finished,
    LayerUnpacked,
    ManifestDone,
    Packed,
    Resolved,
    Resumed,
    Retried,
    Times,
    UnpackProgress,
    Waiting,
    Warned,
)
from moorage.puller.show.documents import JsonLines
from moorage.puller.show.lines import PlainLines
from moorage.puller.show.text import human_seconds, human_size, printable
from moorage.registry.oci import Descriptor, Digest
from moorage.registry.oci.media_types import OCI_LAYER

BLOB = Descriptor(OCI_LAYER, Digest.of(b"layer"), 2_000_000)
EVIL = "\x1b[2Jgone\r\u202e"
EVERY: tuple[Event, ...] = (
    Warned(EVIL),
    Packed(BLOB, 4, 3_000_000, tuple(f"{number}{EVIL}" for number in range(12))),
    Resolved("host/app:v1", BLOB, 3, 5_000_000),
    Waiting(BLOB, EVIL),
    BlobStarted(BLOB),
    Resumed(BLOB, 1_000_000),
    BlobProgress(BLOB, 500_000),
    Retried(BLOB, EVIL, 0.5),
    BlobDone(BLOB),
    BlobSkipped(BLOB, "exists"),
    UnpackProgress(BLOB, 500_000),
    LayerUnpacked(BLOB, 12, 4_000_000, 1.25),
    ManifestDone(BLOB),
    Finished(BLOB, 3_000_000, 2.0, Times(network=1.5, inflate=0.5) + Times(disk=12.04)),
)


def test_the_events_here_are_all_events() -> None:
    """An event that is added must be added here, and so be shown."""
    assert {type(event) for event in EVERY} == set(get_args(Event))


def test_plain_lines_say_what_began_and_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, on stderr, without a control character."""
    show = PlainLines()
    with show:
        for event in EVERY:
            show(event)
    said = capsys.readouterr()
    short = BLOB.digest.hex[:12]
    warning, *rest = said.err.splitlines()
    packed, lines = rest[:12], rest[12:]
    assert warning == "warning: \\x1b[2Jgone\\r\\u202e"
    assert packed[0] == "packed 4 entries, 3.0 MB, into 2.0 MB"
    assert packed[1] == "left out: 0\\x1b[2Jgone\\r\\u202e: is a socket"
    assert packed[11] == "and 2 more"
    assert said.out == ""
    assert lines[0] == f"host/app:v1 is {BLOB.digest}: 3 blobs, 5.0 MB"
    assert lines[1] == f"{short}  waiting: \\x1b[2Jgone\\r\\u202e"
    assert lines[4] == f"{short}  again in 0.5 s: \\x1b[2Jgone\\r\\u202e"
    assert lines[5].startswith(f"{short}  done, 2.0 MB in 0.0 s, ")
    assert lines[7] == f"{short}  unpacked 12 entries, 4.0 MB in 1.2 s"
    assert lines[8] == "3.0 MB in 2.0 s (1.5 MB/s): network 1.5 s, inflate 0.5 s, disk 12 s"
    assert len(lines) == 9
    assert not set("\x1b\r\u202e") & set(said.err)


def test_json_lines_are_one_document_per_event(capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout, without what moves in bulk."""
    show = JsonLines()
    with show:
        for event in EVERY:
            show(event)
    said = capsys.readouterr()
    documents = [json.loads(line) for line in said.out.splitlines()]
    bulk = (BlobProgress, UnpackProgress)
    assert [document["event"] for document in documents] == [
        type(event).__name__ for event in EVERY if not isinstance(event, bulk)
    ]
    assert documents[0] == {"event": "Warned", "message": EVIL}
    assert {document["digest"] for document in documents[1:]} == {str(BLOB.digest)}
    assert documents[-1]["times"] == {"network": 1.5, "hash": 0.0, "inflate": 0.5, "disk": 12.04}
    assert said.err == ""
    assert said.out.isascii()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (7810, "2 h 10 min"),
    ],
)
def test_durations_are_shown_for_people(seconds: float, shown: str) -> None:
    """No 60 s, no 9.95 → 10.0 s."""
    assert human_seconds(seconds) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain Ναύτης ⚓", "plain Ναύτης ⚓"), ("a\x1b[1m", "a\\x1b[1m"), ("a\nb", "a\\nb"), ("\u202e", "\\u202e")],
)
def test_text_is_shown_not_obeyed(text: str, shown: str) -> None:
    """Letters of all languages stay."""
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_550_000, "1.6 MB"), (3e12, "3.0 TB")]
)
def test_sizes_are_shown_for_people(size: float, shown: str) -> None:
    """In powers of ten."""
    assert human_size(size) == shown
