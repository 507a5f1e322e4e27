"""The verbs that look after the store, as people and programs use them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from moorage.puller.cli import root
from moorage.puller.commands.keeping import parse_age, parse_size
from moorage.puller.errors import BadReference
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.pack import pack_directory
from moorage.puller.show.stock import history_lines, human_age
from moorage.puller.stock.images import History, Step
from moorage.puller.store import Store, default_store
from moorage.registry.oci import ANY_VALUE, Descriptor, Digest, Platform, Reference, Tag
from moorage.registry.oci.media_types import OCI_LAYER_GZIP

_NAME = "localhost:5000/team/app"

Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a verb over a store that holds one image under ``team/app:v1``: status, lines of stdout, stderr."""
    monkeypatch.setenv("MOORAGE_STORE", str(tmp_path / "store"))
    store = Store(str(tmp_path / "store"))
    _put(store.files, tmp_path)

    def run(*words: str) -> tuple[int, list[str], str]:
        status = 0
        try:
            root(list(words), standalone_mode=False)
        except SystemExit as exc:
            status = int(str(exc.code))
        said = capsys.readouterr()
        return status, said.out.splitlines(), said.err

    return run


def _put(files: LayoutFiles, scratch: Path) -> None:
    (scratch / "files").mkdir()
    (scratch / "files" / "hello").write_text("hello")
    packed = pack_directory(str(scratch / "files"), files, platform=Platform("linux", "amd64"), epoch=0)
    reference = Reference.parse(_NAME)
    catalog = Store(files.root).view(reference.registry).catalog
    catalog.push(reference.repository, packed.manifest, [Tag("v1")], ANY_VALUE)


def _documents(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        pytest.param({}, "home/.local/share/moorage", id="nothing said"),
        pytest.param({"XDG_DATA_HOME": "/data"}, "/data/moorage", id="the user's data"),
        pytest.param({"XDG_DATA_HOME": "/data", "MOORAGE_STORE": "/store"}, "/store", id="the variable"),
        pytest.param({"MOORAGE_STORE": "~/store"}, "home/store", id="the variable, as YAML has it"),
    ],
)
def test_where_the_store_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: str
) -> None:
    """Without a flag."""
    for name in ("XDG_DATA_HOME", "MOORAGE_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_store() == str(tmp_path / place)


def test_images_are_a_table(run: Run) -> None:
    """With a heading; an empty store says nothing."""
    status, lines, _ = run("images")
    assert status == 0
    assert lines[0].split() == ["NAME", "TAG", "DIGEST", "PLATFORM", "SIZE", "SHARED", "AGE"]
    assert lines[1].split()[:2] == [_NAME, "v1"]
    assert "linux/amd64" in lines[1]
    run("rm", f"{_NAME}:v1")
    assert run("images") == (0, [], "")


def test_images_for_programs(run: Run) -> None:
    """One document an image."""
    (document,) = _documents(run("images", "--json")[1])
    assert document["reference"] == f"{_NAME}:v1"
    assert document["platforms"] == ["linux/amd64"]
    assert document["created"] == "1970-01-01T00:00:00+00:00"
    assert datetime.fromisoformat(document["used"]) > datetime.now(UTC) - timedelta(minutes=5)


def test_history_is_a_picture(run: Run) -> None:
    """What it is, then a line a step."""
    _, lines, _ = run("history", f"{_NAME}:v1")
    assert lines[0].startswith(f"{_NAME}:v1  linux/amd64  sha256:")
    assert lines[1].startswith("1 layer, ")
    assert "█" * 24 in lines[2]
    assert lines[2].endswith("moorage push")
    (document,) = _documents(run("history", f"{_NAME}:v1", "--json")[1])
    assert [step["createdBy"] for step in document["steps"]] == ["moorage push"]


def test_tag_then_remove(run: Run) -> None:
    """Each prints what it did."""
    assert run("tag", f"{_NAME}:v1", "example.com/else:v2")[1][0].startswith("example.com/else:v2@sha256:")
    assert run("rm", f"{_NAME}:v1")[1] == [f"removed {_NAME}:v1"]
    digest = _documents(run("images", "--json")[1])[0]["digest"]
    (document,) = _documents(run("rm", digest[:19], "--json")[1])
    assert document["removed"] == ["example.com/else:v2"]
    assert document["blobs"] == 3


def test_prune_by_size(run: Run) -> None:
    """Down to nothing."""
    assert run("prune", "--older-than", "1h", "--max-size", "1GB")[1] == []
    assert run("prune", "--max-size", "0")[1] == [f"removed {_NAME}:v1"]


def test_verify_tells_and_mends(run: Run, tmp_path: Path) -> None:
    """Status 1 while something is wrong, and which image it hits."""
    status, lines, said = run("verify")
    assert (status, lines) == (0, [])
    assert "all is well" in said
    victim = max((tmp_path / "store" / "blobs" / "sha256").iterdir())
    victim.write_bytes(b"")
    status, lines, said = run("verify")
    assert status == 1
    assert lines == [f"the blob sha256:{victim.name} is damaged", f"{_NAME}:v1 lacks sha256:{victim.name}"]
    assert "--mend" in said
    assert [document["defect"] for document in _documents(run("verify", "--json")[1])] == ["damaged", "lacking"]
    assert run("verify", "--mend")[0] == 0
    assert run("verify")[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        ("history", f"{_NAME}:none"),
        ("tag", f"{_NAME}:none", f"{_NAME}:new"),
        ("rm", f"{_NAME}:none"),
        ("rm", "sha256:01234567"),
    ],
)
def test_what_is_not_there_is_one_line(run: Run, words: tuple[str, ...]) -> None:
    """And status 1."""
    status, lines, said = run(*words)
    assert (status, lines) == (1, [])
    assert said.count("\n") == 1
    assert "not in the store" in said


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)])
def test_ages(text: str, seconds: int) -> None:
    """A number and a unit."""
    assert parse_age(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("10B", 10), ("5k", 5000), ("500MB", 5 * 10**8), ("1GiB", 2**30), ("2T", 2 * 10**12)]
)
def test_sizes(text: str, size: int) -> None:
    """Powers of 1000, of 1024 where it says so."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5h", "7 d", "٣d", "5G"])
def test_what_is_no_age(text: str) -> None:
    """Is wrong usage."""
    with pytest.raises(BadReference):
        parse_age(text)


@pytest.mark.parametrize("text", ["", "G", "-1", "1.5G", "5 GB", "5g", "5i", "7d"])
def test_what_is_no_size(text: str) -> None:
    """Is wrong usage."""
    with pytest.raises(BadReference):
        parse_size(text)


def test_bars_are_in_proportion() -> None:
    """The largest layer fills its bar, the smallest is still seen; nothing from outside reaches the terminal raw."""
    digest = Digest.of(b"")
    sizes = [8_000_000, 4_000_000, 1, None]
    layers = [Descriptor(OCI_LAYER_GZIP, digest, size) if size else None for size in sizes]
    steps = [Step(None, "/bin/sh -c #(nop)  CMD \x1b[31m", "", layer, None) for layer in layers]
    history = History("n", Descriptor(OCI_LAYER_GZIP, digest, 1), "linux/amd64", tuple(steps))
    bars = [line[10:34].rstrip() for line in list(history_lines(history))[2:]]
    assert bars == ["█" * 24, "█" * 12, "▏", ""]
    assert all("\x1b" not in line and line.endswith("CMD \\x1b[31m") for line in list(history_lines(history))[2:])


def test_a_layer_that_nothing_is_told_of_shows_its_digest() -> None:
    """Rather than nothing."""
    layer = Descriptor(OCI_LAYER_GZIP, Digest.of(b""), 1)
    history = History("n", layer, "linux/amd64", (Step(None, "", "", layer, None),))
    assert list(history_lines(history))[2].endswith("  layer e3b0c44298fc")


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "now"), (60, "1 minute"), (7300, "2 hours"), (90_000, "1 day"), (10**9, "31 years")]
)
def test_ages_for_people(seconds: float, text: str) -> None:
    """The largest unit."""
    assert human_age(seconds) == text
