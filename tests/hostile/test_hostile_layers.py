"""Every kind of hostile layer, above and below another, in every compression: refused or accepted as the table says.

Whatever is said, nothing outside of the staging directory changes; a refused layer leaves nothing, and is told in one
line. As root and as a real user the same goes for the command, in bounded time and memory.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
import zstandard
from moorage.puller.errors import BrokenLayer, ImageError, UnsafeLayer
from moorage.puller.unpack.apply import Layer, unpack_layers
from moorage.registry.oci import Descriptor, Digest
from moorage.registry.oci.media_types import OCI_CONFIG, OCI_IMAGE, OCI_LAYER

from tests.hostile.attacks import ATTACKS
from tests.interop.images import HOST, Layout
from tests.layers import archive, directory, file, layer_of, symlink
from tests.somebody import make_somebody

_LOWER = layer_of(archive(directory("d"), file("d/old"), file("own"), symlink("link", "d"), directory("e/f")))
_UPPER = layer_of(archive(file("d/above"), file(".wh.own", b"")))
_MIB = 1024 * 1024


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a canary; it must be as it was, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="moorage-") as name:
        place = Path(name)
        (place / "stage").mkdir()
        _make_canary(place / "outside")
        before = _fingerprint(place / "outside")
        yield place
        assert _fingerprint(place / "outside") == before
        assert set(os.listdir(place)) == {"outside", "stage"}


def _make_canary(outside: Path) -> None:
    (outside / "folder").mkdir(parents=True)
    (outside / "secret").write_text("canary")
    (outside / "secret").chmod(0o640)
    (outside / "folder" / "deep").write_text("canary")


def _fingerprint(root: Path) -> list[object]:
    paths = sorted((root, *root.rglob("*")))
    return [
        (path, _facts(path.lstat()), path.read_bytes() if path.is_file() else b"", os.listxattr(path)) for path in paths
    ]


def _facts(info: os.stat_result) -> tuple[int, ...]:
    return info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_mtime_ns, info.st_ino


def _cases(first: int) -> Iterator[tuple[str, str, str]]:
    """Each kind in each position, the compressions by turns: the library, the command as root and as a user have each
    kind in another one."""
    for number, name in enumerate(ATTACKS):
        for turn, position in enumerate(("alone", "above", "below", "in the store")):
            yield name, ("none", "gzip", "zstd")[(first + number + turn) % 3], position


@pytest.mark.parametrize(("name", "compression", "position"), list(_cases(0)))
def test_each_kind_is_refused_or_accepted(name: str, compression: str, position: str, place: Path) -> None:
    """And nothing but the tree changes, nor stays."""
    attack = ATTACKS[name]
    layer = layer_of(attack.make(str(place / "outside")), compression)
    layers = {"above": [_LOWER, layer], "below": [layer, _UPPER]}.get(position, [layer])
    target = place / "stage" / "r"
    if attack.is_accepted or (attack.is_noted and position == "in the store"):
        unpack_layers(layers, str(target), keep_markers=position == "in the store")
        assert os.listdir(place / "stage") == ["r"]
        return
    with pytest.raises(ImageError) as refused:
        unpack_layers(layers, str(target), keep_markers=position == "in the store")
    assert isinstance(refused.value, (UnsafeLayer, BrokenLayer))
    assert len(str(refused.value).splitlines()) == 1
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 500
    assert os.listdir(place / "stage") == []


def _blob(blob: bytes, raw: bytes) -> Layer:
    return Layer(Descriptor(OCI_LAYER, Digest.of(blob), len(blob)), Digest.of(raw), lambda: io.BytesIO(blob))


@cache
def _compressed() -> Mapping[str, tuple[bool, Layer]]:
    raw, zeros = archive(file("x")), archive(file("zeros", bytes(64 * _MIB)))
    skippable = b"\x5e\x2a\x4d\x18" + (9).to_bytes(4, "little") + b"skippable"
    zipped, frame = gzip.compress(raw), zstandard.ZstdCompressor().compress(raw)
    broken = zipped[:-8] + bytes((zipped[-8] ^ 1,)) + zipped[-7:]
    window = b"\x28\xb5\x2f\xfd\x00" + bytes((21 << 3,)) + b"\x01\x00\x00"
    halves = gzip.compress(raw[:700]) + gzip.compress(raw[700:])
    return {
        "gzip-1:1000": (True, _blob(gzip.compress(zeros, 6), zeros)),
        "gzip-10k-members": (True, _blob(gzip.compress(b"") * 10_000 + zipped, raw)),
        "gzip-two-members": (True, _blob(halves, raw)),
        "gzip-truncated": (False, _blob(zipped[:-9], raw)),
        "gzip-then-garbage": (False, _blob(zipped + b"garbage", raw)),
        "gzip-then-zeros": (False, _blob(zipped + bytes(512), raw)),
        "gzip-bad-crc": (False, _blob(broken, raw)),
        "gzip-of-gzip": (False, _blob(gzip.compress(zipped), zipped)),
        "zstd-1:32k": (True, _blob(zstandard.ZstdCompressor().compress(zeros), zeros)),
        "zstd-skippable-flood": (True, _blob(skippable * 50_000 + frame, raw)),
        "zstd-2GiB-window": (False, _blob(window, raw)),
        "zstd-truncated": (False, _blob(frame[:-5], raw)),
        "zstd-then-garbage": (False, _blob(frame + b"garbage", raw)),
        "wrong-diffID": (False, _blob(zipped, raw + b"x")),
        "short": (False, _blob(raw[:-100], raw)),
        "long": (False, _blob(raw + b"x", raw)),
    }


@pytest.mark.parametrize("name", _compressed())
def test_each_kind_of_blob_is_refused_or_accepted(name: str, place: Path) -> None:
    """The same for what is wrong with the compressed bytes, or with what was promised of them."""
    is_accepted, layer = _compressed()[name]
    if is_accepted:
        unpack_layers([layer], str(place / "stage" / "r"))
        assert os.listdir(place / "stage") == ["r"]
        return
    with pytest.raises(BrokenLayer):
        unpack_layers([layer], str(place / "stage" / "r"))
    assert os.listdir(place / "stage") == []


_RUN_ALL = """
import contextlib, io, json, os, shutil, subprocess, sys, time
from moorage.puller.cli import main
from tests.somebody import become

os._exit = sys.exit  # by which the command leaves; here it is called again

def run(case, target):
    said, began = io.StringIO(), time.process_time()
    sys.argv = ["moorage", "unpack", "--store", place + "/store", "127.0.0.1:1/attacks:" + case, target]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main()
        except SystemExit as exc:
            code = exc.code
    return [case, code or 0, said.getvalue(), time.process_time() - began, sorted(os.listdir(place + "/stage"))]

place, user = sys.argv[1:]
cases = json.load(open(place + "/cases"))
for case in cases[:2]:  # whatever is imported late is imported now, with the right to read it
    run(case, place + "/stage/r")
    shutil.rmtree(place + "/stage/r", ignore_errors=True)
if user:
    subprocess.run(["chown", "-R", user, place + "/store", place + "/stage"], check=True)
    become(user)
for case in cases:
    print(json.dumps(run(case, place + "/stage/r")))
    shutil.rmtree(place + "/stage/r", ignore_errors=True)
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
_Said = dict[str, tuple[int, str, float, list[str]]]


def _images(canary: str, first: int) -> Iterator[tuple[str, bool, list[Layer]]]:
    """Tag, verdict and layers of every kind, alone, above and below another layer."""
    yield "warm", True, [_LOWER]
    yield "warm-refused", False, [_LOWER, layer_of(archive(file("../x")))]
    for name, compression, position in _cases(first):
        layer = layer_of(ATTACKS[name].make(canary), compression)
        layers = {"alone": [layer], "above": [_LOWER, layer], "below": [layer, _UPPER]}.get(position)
        if layers:
            yield _tag(f"{name}.{compression}.{position}"), ATTACKS[name].is_accepted, layers
    for name, (is_accepted, layer) in _compressed().items():
        yield _tag(name), is_accepted, [layer]


def _tag(name: str) -> str:
    return re.sub("[^A-Za-z0-9.-]", "_", name)


@pytest.fixture(scope="module", params=["root", "rootless"])
def said(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, bool], _Said, int]]:
    """The verdicts; what the command did with each (status, words, processor seconds, what is left); memory in KiB."""
    user = make_somebody()
    with tempfile.TemporaryDirectory(prefix="moorage-") as name:
        place = Path(name)
        (place / "stage").mkdir()
        _make_canary(place / "outside")
        verdicts = _write_store(place, 1 if request.param == "root" else 2)
        (place / "cases").write_text(json.dumps(list(verdicts)))
        if request.param == "rootless":
            subprocess.run(["chown", "-R", user.pw_name, place], check=True)
        before = _fingerprint(place / "outside")
        done = subprocess.run(
            [sys.executable, "-c", _RUN_ALL, place, user.pw_name if request.param == "rootless" else ""],
            capture_output=True, text=True, check=False, timeout=110, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        *lines, memory = map(json.loads, done.stdout.splitlines())
        assert _fingerprint(place / "outside") == before
        yield verdicts, {case: tuple(rest) for case, *rest in lines}, memory


def _write_store(place: Path, first: int) -> dict[str, bool]:
    layout, verdicts = Layout(place / "store"), {}
    for tag, is_accepted, layers in _images(str(place / "outside"), first):
        verdicts[tag] = is_accepted
        config = {"architecture": HOST, "os": "linux",
                  "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]}}  # fmt: skip
        blobs = [layout.blob(f"{OCI_LAYER}+gzip", layer.open().read()) for layer in layers]
        document = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "layers": blobs,
                    "config": layout.blob(OCI_CONFIG, json.dumps(config).encode())}  # fmt: skip
        layout.name(f"127.0.0.1:1/attacks:{tag}", layout.manifest(document))
    layout.finish()
    return verdicts


@pytest.mark.root
def test_the_command_says_what_the_table_says(said: tuple[dict[str, bool], _Said, int]) -> None:
    """Status 0 and a tree, or status 1, one clear line, and nothing left."""
    verdicts, found, _ = said
    for case, is_accepted in verdicts.items():
        code, words, _seconds, left = found[case]
        assert (case, code, left) == (case, 0 if is_accepted else 1, ["r"] if is_accepted else [])
        errors = [line for line in words.splitlines() if line.startswith("moorage: ")]
        assert errors == [] if is_accepted else len(errors) == 1 and words.splitlines()[-1:] == errors, (case, words)
        assert all(line.isprintable() and len(line) < 500 for line in errors), (case, words)


@pytest.mark.root
def test_the_command_is_bounded(said: tuple[dict[str, bool], _Said, int]) -> None:
    """Each in less than two seconds of processor time, which other work does not add to; all in less than 256 MiB."""
    _, found, memory = said
    assert {case: rest[2] for case, rest in found.items() if rest[2] > 2} == {}
    assert memory < 256 * 1024
