"""The audit log: whole lines, no secrets, whatever clients send."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.registry.web.audit import AuditLog, Event


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    log = AuditLog.open(str(tmp_path / "audit.log"))
    yield log
    log.close()


def _lines(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "audit.log").read_bytes().splitlines()]


def test_a_decision_is_one_line(tmp_path: Path) -> None:
    """What is known, under its name; what is not known is left out."""
    log = AuditLog(os.open(tmp_path / "audit.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), clock=lambda: 1_800_000_000)
    log.record(
        Event(
            event="access", allowed=False, who="robot:ci", action="update", repository="team/app", tag="v1",
            digest="sha256:00", rule="rules[2]", client="192.0.2.1", id="x-1",
        )
    )  # fmt: skip
    log.close()
    assert _lines(tmp_path) == [
        {
            "time": "2027-01-15T08:00:00.000Z",
            "event": "access",
            "allowed": False,
            "who": "robot:ci",
            "action": "update",
            "repository": "team/app",
            "tag": "v1",
            "digest": "sha256:00",
            "rule": "rules[2]",
            "client": "192.0.2.1",
            "id": "x-1",
        }
    ]


def test_only_its_owner_reads_it_and_nothing_is_lost(tmp_path: Path, log: AuditLog) -> None:
    """A new file has mode 0600; an old one is appended to."""
    log.record(Event(event="login", allowed=True, who="alice"))
    again = AuditLog.open(str(tmp_path / "audit.log"))
    again.record(Event(event="login", allowed=True, who="bob"))
    again.close()
    assert [line["who"] for line in _lines(tmp_path)] == ["alice", "bob"]
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600


_TEXTS = {name: st.text(max_size=2000) for name in Event.__struct_fields__ if name not in ("event", "allowed")}


@given(
    st.fixed_dictionaries({"event": st.sampled_from(["login", "token", "access"]), "allowed": st.booleans(), **_TEXTS})
)
def test_whatever_is_sent_a_line_stays_one_line(fields: dict[str, Any]) -> None:
    """Printable ASCII, a JSON object, and short enough for a pipe to take it whole."""
    reading, writing = os.pipe()
    log = AuditLog(writing)
    log.record(Event(**fields))
    log.close()
    line = os.read(reading, 1_000_000)
    os.close(reading)
    assert line.endswith(b"\n")
    assert line[:-1].isascii()
    assert line[:-1].decode().isprintable()
    assert json.loads(line)["allowed"] is fields["allowed"]


def test_the_longest_line_fits_a_pipe() -> None:
    """Every field at its limit, in the characters that JSON doubles."""
    reading, writing = os.pipe()
    log = AuditLog(writing)
    log.record(Event(event="access", allowed=False, **dict.fromkeys(_TEXTS, '"' * 5000)))
    log.close()
    line = os.read(reading, 1_000_000)
    os.close(reading)
    assert len(line) < select.PIPE_BUF
    assert json.loads(line)["who"] == '"' * 397 + "..."


def test_lines_of_several_processes_are_not_torn(tmp_path: Path) -> None:
    """Workers that write side by side through descriptors of their own."""
    code = (
        "import sys\nfrom moorage.registry.web.audit import AuditLog, Event\n"
        "log = AuditLog.open(sys.argv[1])\n"
        "for number in range(300): log.record(Event(event='login', allowed=True, who=sys.argv[2] * 300))"
    )
    place = str(tmp_path / "audit.log")
    writers = [subprocess.Popen([sys.executable, "-c", code, place, name]) for name in "abcd"]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    assert sorted(line["who"] for line in _lines(tmp_path)) == sorted(name * 300 for name in "abcd" for _ in range(300))


def test_a_log_that_cannot_be_written_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is said once; when the disk has room again the next line is whole."""
    full = AuditLog(os.open("/dev/full", os.O_WRONLY))
    for _ in range(3):
        full.record(Event(event="login", allowed=True, who="alice"))
    full.close()
    assert [record.getMessage() for record in caplog.records] == [
        "cannot write the audit log, its lines are lost: No space left on device"
    ]


def test_a_line_behind_a_torn_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: AuditLog) -> None:
    """A full disk may take a part of a line."""
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:10]))
        log.record(Event(event="login", allowed=True, who="torn"))
    log.record(Event(event="login", allowed=True, who="whole"))
    torn, whole = (tmp_path / "audit.log").read_bytes().splitlines()
    assert len(torn) == 10
    assert json.loads(whole)["who"] == "whole"


def test_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """A dash; closing the log leaves standard output open."""
    log = AuditLog.open("-")
    log.record(Event(event="token", allowed=True, who="alice"))
    log.close()
    print("still open")
    first, second = capfd.readouterr().out.splitlines()
    assert json.loads(first)["who"] == "alice"
    assert second == "still open"
