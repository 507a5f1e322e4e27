"""``push`` and ``copy`` as people use them: archives, plans, the store as a place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from moorage.registry.testing import LoopbackRegistry

_MAIN = [sys.executable, "-c", "from moorage.puller.cli import main; main()"]


class _Moorage:
    """The program, with a store of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __call__(self, *words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "MOORAGE_STORE": str(self.place / "store"), "HOME": str(self.place)}
        done = subprocess.run(
            [*_MAIN, *map(str, words)], env=environment, capture_output=True, text=True, check=False, timeout=60,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def moorage(tmp_path: Path) -> _Moorage:
    return _Moorage(tmp_path)


def test_any_to_any(moorage: _Moorage, registry: LoopbackRegistry, tmp_path: Path) -> None:
    """Registry, archives, store, layout and back: one digest all the way."""
    digest = registry.add_image("team/app:v1", {"etc/motd": "hello"}, {"etc/more": "more"})
    ref, back = f"{registry.host}/team/app:v1", f"{registry.host}/team/back:v1"
    way = [
        f"docker-archive:{tmp_path / 'd.tar'}:team/app:v1",
        f"oci-archive:{tmp_path / 'o.tar'}:v1",
        f"store:{ref}",
        f"oci:{tmp_path / 'layout'}:v1",
        back,
    ]
    for source, destination in zip([ref, *way], way, strict=False):
        assert moorage("copy", source, destination).stdout.strip().endswith(f"@{digest}")
    assert moorage("push", way[0], f"{registry.host}/team/pushed:v1").stdout.strip().endswith(f"@{digest}")
    assert moorage("push", way[1], f"{registry.host}/team/pushed:v2").stdout.strip().endswith(f"@{digest}")


def test_an_archive_is_replaced_whole(moorage: _Moorage, registry: LoopbackRegistry, tmp_path: Path) -> None:
    """The same image gives the same bytes; a failure leaves the old ones."""
    registry.add_image("team/app:v1", {"etc/motd": "hello"})
    archive = tmp_path / "x.tar"
    moorage("copy", f"{registry.host}/team/app:v1", f"docker-archive:{archive}:app:v1")
    before = archive.read_bytes()
    moorage("copy", f"{registry.host}/team/app:v1", f"docker-archive:{archive}:app:v1")
    assert archive.read_bytes() == before
    moorage("copy", f"{registry.host}/team/none:v1", f"docker-archive:{archive}:app:v1", status=1)
    assert archive.read_bytes() == before
    with tarfile.open(archive) as opened:
        assert {entry.mtime for entry in opened} == {0}


@pytest.mark.parametrize("destination", ["{host}/new/place:v1", "docker-archive:{tmp}/x.tar", "oci:{tmp}/x:v1"])
def test_a_plan_changes_nothing(
    moorage: _Moorage, registry: LoopbackRegistry, tmp_path: Path, destination: str
) -> None:
    """It says what would move, in words and in JSON, and leaves no trace."""
    registry.add_image("team/app:v1", {"etc/motd": "hello"})
    words = ("copy", "--plan", f"{registry.host}/team/app:v1", destination.format(host=registry.host, tmp=tmp_path))
    said = moorage(*words)
    (document,) = [json.loads(line) for line in moorage(*words, "--json").stdout.splitlines()]
    assert document["event"] == "Planned"
    assert document["moved"] == (0 if "host" in destination else document["size"])  # within a registry it is mounted
    assert said.stdout
    assert os.listdir(tmp_path) in ([], ["store"])
    assert {request.method for request in registry.requests} <= {"GET", "HEAD"}


def test_an_old_archive_is_said_to_be_one(moorage: _Moorage, registry: LoopbackRegistry, tmp_path: Path) -> None:
    """A manifest is made for it, and that is remarked."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    for name, content in (
        ("c.json", config),
        ("manifest.json", b'[{"Config": "c.json", "RepoTags": ["app:v1"], "Layers": []}]'),
    ):
        (tmp_path / name).write_bytes(content)
    with tarfile.open(tmp_path / "old.tar", "w") as archive:
        archive.add(tmp_path / "c.json", "c.json")
        archive.add(tmp_path / "manifest.json", "manifest.json")
    done = moorage("push", f"docker-archive:{tmp_path / 'old.tar'}", f"{registry.host}/old/app:v1")
    assert "made one" in done.stderr
    about = json.loads(moorage("inspect", f"{registry.host}/old/app:v1", "--json").stdout)
    assert about["config"] == json.loads(config)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(("copy", "docker-archive:{tmp}/none.tar", "oci:{tmp}/x:v1"), "none.tar", id="no archive"),
        pytest.param(("copy", "oci-archive:{tmp}/text", "oci:{tmp}/x:v1"), "text", id="text, not an archive"),
        pytest.param(("push", "docker-archive:{tmp}/text", "{host}/x:v1"), "text", id="pushing text"),
    ],
)
def test_what_is_no_archive_is_one_line(
    moorage: _Moorage, registry: LoopbackRegistry, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """And status 1."""
    (tmp_path / "text").write_text("not an archive\n" * 100)
    done = moorage(*(word.format(tmp=tmp_path, host=registry.host) for word in words), status=1)
    assert (done.stdout, done.stderr.count("\n"), said in done.stderr) == ("", 1, True), done.stderr


def test_an_archive_needs_a_file(moorage: _Moorage) -> None:
    """Otherwise it is wrong usage."""
    assert "say which file" in moorage("copy", "docker-archive:", "oci:x:v1", status=2).stderr
    assert "cop" in moorage("inspect", "docker-archive:x.tar", status=2).stderr
