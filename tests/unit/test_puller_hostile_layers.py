"""Layers that want out: refused as a whole, and nothing outside of the root is touched (rules U1 to U13)."""

from __future__ import annotations

import gzip
import io
import os
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from moorage.puller.entries import Entry, Kind
from moorage.puller.errors import BrokenLayer, ImageError, UnsafeLayer
from moorage.puller.unpack.apply import Layer, unpack_layers
from moorage.puller.unpack.inflate import inflate
from moorage.puller.unpack.limits import Limits
from moorage.registry.oci import Descriptor, Digest
from moorage.registry.oci.media_types import OCI_LAYER_GZIP

from tests.descriptors import descriptors_below
from tests.layers import archive, directory, file, hard_link, layer_of, node, seen, symlink, unpack


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A directory beside the root; whatever a test does, it and its neighbours stay as they are."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("canary")
    (outside / "secret").chmod(0o640)
    before = seen(outside), (outside / "secret").stat().st_mtime_ns, (outside / "secret").stat().st_nlink
    yield outside
    assert (seen(outside), (outside / "secret").stat().st_mtime_ns, (outside / "secret").stat().st_nlink) == before
    assert {path.name for path in tmp_path.iterdir()} <= {"outside", "r"}


def _refused(target: Path, *layers: tuple) -> None:  # type: ignore[type-arg]
    with pytest.raises(ImageError) as caught:
        unpack(target, *layers)
    assert isinstance(caught.value, (UnsafeLayer, BrokenLayer))
    assert not target.exists()


@pytest.mark.parametrize(
    "members",
    [
        pytest.param((file("../x"),), id="dotdot"),
        pytest.param((file("a/../../x"),), id="dotdot in the middle"),
        pytest.param((file("a/.."),), id="dotdot at the end"),
        pytest.param((directory(".."),), id="dotdot alone"),
        pytest.param((symlink(".", "outside"),), id="root becomes a link"),
        pytest.param((file("/"),), id="root becomes a file"),
        pytest.param((hard_link("x", "../outside/secret"),), id="hard link with dotdot"),
        pytest.param((hard_link("x", "."),), id="hard link to the root"),
        pytest.param((directory("d"), hard_link("x", "d")), id="hard link to a directory"),
        pytest.param((hard_link("x", "x"),), id="hard link to itself"),
        pytest.param((file("x"), hard_link("x", "x")), id="hard link over itself"),
        pytest.param((hard_link("x", "later"), file("later")), id="hard link forward"),
        pytest.param((symlink("a", "b"), symlink("b", "a"), file("a/x")), id="links in a circle"),
        pytest.param((file("f"), file("f/x")), id="a file as a parent"),
        pytest.param((file(".wh."),), id="whiteout of nothing"),
        pytest.param((file(".wh.."),), id="whiteout of dot"),
        pytest.param((file("a/.wh..."),), id="whiteout of dotdot"),
        pytest.param((directory(".wh.d"), file(".wh.d/x")), id="whiteout with children"),
        pytest.param((node("w", Kind.CHARACTER_DEVICE),), id="overlay whiteout"),
        pytest.param((file("x" * 256),), id="component too long"),
        pytest.param((file("d/" * 257 + "x"),), id="too deep"),
        pytest.param((file("d" * 200 + "/" + ("d" * 200 + "/") * 20 + "x"),), id="path too long"),
        pytest.param((symlink("x", "y" * 4097),), id="target too long"),
        pytest.param((file("f", xattrs={b"user.%d" % n: b"" for n in range(65)}),), id="too many attributes"),
        pytest.param((file("f", xattrs={b"user.x": bytes(65 * 1024)}),), id="attributes too large"),
    ],
)
def test_a_layer_that_asks_for_it_is_refused(tmp_path: Path, canary: Path, members: tuple) -> None:  # type: ignore[type-arg]
    """And nothing of it stays."""
    _refused(tmp_path / "r", members)


@pytest.mark.parametrize("target", ["/", "..", "../..", "/../../..", "../outside", "OUT"])
@pytest.mark.parametrize(
    "act",
    [
        pytest.param((file("link/secret", b"stolen"),), id="write a file"),
        pytest.param((directory("link/secret"),), id="make a directory"),
        pytest.param((symlink("link/secret", "x"),), id="make a link"),
        pytest.param((hard_link("link/secret", "own"),), id="make a hard link"),
        pytest.param((hard_link("stolen", "link/secret"),), id="take a hard link"),
        pytest.param((file("link/.wh.secret"),), id="delete"),
        pytest.param((file("link/.wh..wh..opq"),), id="delete all"),
        pytest.param((directory("link", mode=0o777),), id="change the mode"),
        pytest.param((directory("link/"), file("link/secret", b"stolen")), id="replace the link first"),
        pytest.param((file("link/outside/secret", b"stolen"),), id="write deeper"),
    ],
)
@pytest.mark.parametrize("layers", [1, 2], ids=["one layer", "two layers"])
def test_a_link_in_the_way_leads_nowhere(
    tmp_path: Path,
    canary: Path,
    target: str,
    act: tuple[Any, ...],
    layers: int,
) -> None:
    """It is followed inside the root, or the layer is refused; outside nothing changes."""
    link = symlink("link", str(canary) if target == "OUT" else target)
    first = (file("own"), link)
    try:
        unpack(tmp_path / "r", *([(*first, *act)] if layers == 1 else [first, act]))
    except (UnsafeLayer, BrokenLayer):
        assert not (tmp_path / "r").exists()


def test_a_chain_of_links_ends_somewhere(tmp_path: Path, canary: Path) -> None:
    """Forty are followed, forty-one are not, as in the kernel."""
    chain = [directory("end"), *(symlink(f"l{n}", f"l{n + 1}") for n in range(41)), symlink("l41", "end")]
    unpack(tmp_path / "r", (*chain, file("l2/x")))
    assert "end/x" in seen(tmp_path / "r")
    _refused(tmp_path / "s", (*chain, file("l1/x")))


def test_a_file_is_never_written_through_an_old_link(tmp_path: Path, canary: Path) -> None:
    """What exists is removed first, whatever it is."""
    unpack(tmp_path / "r", (symlink("x", str(canary / "secret")),), (file("x", b"mine"),))
    assert seen(tmp_path / "r") == {"x": "file 0644 mine"}


def test_a_replaced_link_is_forgotten(tmp_path: Path, canary: Path) -> None:
    """A parent that was found through a link is looked for again when the link is gone."""
    members = (directory("a"), symlink("l", "a"), file("l/one"), symlink("l", "b"), file("l/two"))
    unpack(tmp_path / "r", members)
    assert {"a/one", "b/two"} <= set(seen(tmp_path / "r"))


def test_a_link_replaced_through_itself_is_forgotten(tmp_path: Path, canary: Path) -> None:
    """``x/self`` leads to ``x``, so ``x/self/self`` is the link itself."""
    members = (directory("x"), symlink("x/self", "."), file("x/self/a"), directory("x/self/self"), file("x/self/b"))
    unpack(tmp_path / "r", members)
    assert set(seen(tmp_path / "r")) == {"x", "x/self", "x/a", "x/self/b"}


@pytest.mark.parametrize(
    ("limits", "fits", "refused"),
    [
        pytest.param(Limits(entries=2), (file("a"), file("b")), file("c"), id="entries"),
        pytest.param(Limits(file=10), (file("a", bytes(10)),), file("b", bytes(11)), id="size of a file"),
        pytest.param(Limits(path=10), (file("a" * 10),), file("b" * 11), id="path"),
        pytest.param(Limits(component=10), (file("a" * 10),), file("b" * 11), id="component"),
        pytest.param(Limits(depth=3), (file("a/b/c"),), file("a/b/c/d"), id="depth"),
        pytest.param(Limits(link=10), (symlink("a", "x" * 10),), symlink("b", "x" * 11), id="link"),
        pytest.param(Limits(header=2048), (file("a", xattrs={b"user.a": bytes(1900)}),),
                     file("b", xattrs={b"user.a": bytes(2100)}), id="extended header"),
        pytest.param(Limits(size=2048, ratio=0), (file("a"),), file("b"), id="uncompressed size"),
        pytest.param(Limits(xattrs=1), (file("a", xattrs={b"user.a": b""}),),
                     file("b", xattrs={b"user.a": b"", b"user.b": b""}), id="attributes"),
        pytest.param(Limits(xattr_size=9), (file("a", xattrs={b"user.a": bytes(9)}),),
                     file("b", xattrs={b"user.a": bytes(10)}), id="size of attributes"),
        pytest.param(Limits(entries=3), (file("a/b/c/x"),), file("d/x"), id="directories that no entry describes"),
    ],
)  # fmt: skip
def test_limits_are_exact(tmp_path: Path, limits: Limits, fits: tuple, refused: tuple) -> None:  # type: ignore[type-arg]
    """What fits is taken, one more is refused."""
    unpack(tmp_path / "r", fits, limits=limits)
    with pytest.raises(UnsafeLayer):
        unpack(tmp_path / "s", (*fits, refused), limits=limits)


@pytest.mark.parametrize(
    ("limits", "count"), [(Limits(image_entries=4), 2), (Limits(image_size=8 * 512), 2)], ids=["entries", "size"]
)
def test_an_image_of_many_layers_has_limits_too(tmp_path: Path, limits: Limits, count: int) -> None:
    """Each layer is small enough, the sum is not."""
    layers = [(file(f"a{number}"), file(f"b{number}", b"")) for number in range(count)]
    raw = [archive(*layer, end=bytes(512)) for layer in layers]
    unpack(tmp_path / "r", *raw, limits=limits)
    with pytest.raises(UnsafeLayer, match="an image of more"):
        unpack(tmp_path / "s", *raw, archive(file("c")), limits=limits)
    assert not (tmp_path / "s").exists()


def test_many_opaque_markers_cost_one(tmp_path: Path) -> None:
    """CVE-2026-95838: a repeated marker is not worked through again."""
    members = [file("d/.wh..wh..opq"), *(file(f"d/{n}", b"") for n in range(2000))]
    before = time.process_time()
    unpack(tmp_path / "r", (directory("d"),), (*members, *[file("d/.wh..wh..opq")] * 5000))
    assert time.process_time() - before < 5
    assert len(seen(tmp_path / "r")) == 2001


def _bombs() -> Iterator[object]:
    huge = bytes(64 * 1024 * 1024)
    yield pytest.param(gzip.compress(huge, 9), id="gzip")
    yield pytest.param(zstandard.ZstdCompressor(19).compress(huge), id="zstd")
    yield pytest.param(zstandard.ZstdCompressor().compress(bytes(1024 * 1024)) * 64, id="zstd of many frames")
    yield pytest.param(gzip.compress(bytes(1024 * 1024)) * 64, id="gzip of many members")


@pytest.mark.parametrize("blob", list(_bombs()))
def test_a_bomb_comes_in_small_pieces(blob: bytes) -> None:
    """No chunk is larger than 1 MiB, whatever the ratio, and memory does not grow (rule U7)."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = 0
    for chunk in inflate(io.BytesIO(blob)):
        assert len(chunk) <= 1024 * 1024
        total += len(chunk)
    assert total == 64 * 1024 * 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a_bomb_is_stopped_where_the_limit_is(tmp_path: Path) -> None:
    """Before it is written."""
    raw = archive(file("x", bytes(8 * 1024 * 1024)))
    with pytest.raises(UnsafeLayer, match="becomes more than"):
        unpack_layers([layer_of(raw, "gzip")], str(tmp_path / "r"), limits=Limits(size=1024 * 1024, ratio=0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_layer_cut_short_is_broken(tmp_path: Path, compression: str) -> None:
    """At every place: nothing appears."""
    whole = layer_of(archive(file("a", os.urandom(3000)), file("b")), compression)
    blob = whole.open().read()
    for size in range(0, len(blob), max(1, len(blob) // 40)):
        cut = Layer(whole.descriptor, whole.diff_id, lambda size=size: io.BytesIO(blob[:size]))  # type: ignore[misc]
        with pytest.raises(BrokenLayer):
            unpack_layers([cut], str(tmp_path / "r"))
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_members_are_read_to_the_last(size: int) -> None:
    """Gzip of several members, as pigz and eStargz write it, and an empty one."""
    content = os.urandom(5000)
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    blob = b"".join(gzip.compress(part) for part in parts) + gzip.compress(b"")
    assert b"".join(inflate(io.BytesIO(blob))) == content


def test_skippable_frames_are_skipped() -> None:
    """Zstd with frames that carry a table of contents, in front, between and behind (zstd:chunked)."""
    skippable = b"\x5e\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"toc!"
    frame = zstandard.ZstdCompressor().compress(b"content")
    blob = skippable + frame + skippable + frame + skippable
    assert b"".join(inflate(io.BytesIO(blob))) == b"contentcontent"


@pytest.mark.parametrize("tail", [b"garbage", b"\x1f", bytes(100)], ids=["text", "half a magic", "zeros"])
def test_nothing_follows_the_last_member(tail: bytes) -> None:
    """Trailing bytes would be seen by one tool and not by another."""
    with pytest.raises(BrokenLayer):
        _ = list(inflate(io.BytesIO(gzip.compress(b"content") + tail)))


def test_a_broken_checksum_is_noticed() -> None:
    """The gzip trailer counts."""
    blob = bytearray(gzip.compress(b"content" * 100))
    blob[-5] ^= 1
    with pytest.raises(BrokenLayer):
        _ = list(inflate(io.BytesIO(bytes(blob))))


def test_no_descriptor_is_lost_on_bad_layers(tmp_path: Path) -> None:
    """CVE-2026-114236: five hundred refusals later as many files are open as before."""
    bad = [(directory("a"), symlink("a/l", "/"), file("a/l/x"), file("../x")), (file("x"), file("x/y"))]
    for number in range(500):
        with pytest.raises(UnsafeLayer):
            unpack(tmp_path / "r", bad[number % 2])
    assert descriptors_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user reaches; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.root
def test_without_rights_the_rest_is_unpacked(open_directory: Path) -> None:
    """As nobody: owners are not set, devices become empty files and that is said, modes and links hold, and the next
    layer can be put on it."""
    raw = archive(
        directory("d", mode=0o555),
        file("d/x", b"content", mode=0o4711),
        hard_link("d/y", "d/x"),
        node("null", Kind.CHARACTER_DEVICE, (1, 3)),
        node("pipe", Kind.FIFO),
    )
    (open_directory / "one.tar").write_bytes(raw)
    (open_directory / "two.tar").write_bytes(archive(file("d/z"), file("d/.wh.y")))
    program = f"""
        import os
        from pathlib import Path
        from tests.layers import unpack
        os.setgid(65534); os.setgroups([]); os.setuid(65534)
        here = Path({str(open_directory)!r})
        done = unpack(here / "r", *((here / name).read_bytes() for name in ("one.tar", "two.tar")))
        print(done.skipped)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "null" in done.stdout
    found = seen(open_directory / "r")
    assert found["d"] == "dir 0555"
    assert found["d/x"] == "file 4711 content"
    assert "d/y" not in found
    assert found["null"] == "file 0600 "
    assert {"d/z", "pipe"} <= set(found)
    assert (open_directory / "r" / "d" / "x").stat().st_uid == 65534


@pytest.mark.root
def test_root_sets_owners_and_makes_devices(tmp_path: Path) -> None:
    """Setuid bits survive the change of owner."""
    entries = (
        (Entry(b"f", Kind.FILE, 0o4755, 12345, 2**32 - 2, 0, 1), b"x"),
        (Entry(b"s", Kind.SYMLINK, 0o777, 7, 8, 0, link=b"f"), b""),
        (Entry(b"d", Kind.DIRECTORY, 0o2755, 9, 10, 0), b""),
        node("null", Kind.CHARACTER_DEVICE, (1, 3)),
        node("disk", Kind.BLOCK_DEVICE, (7, 200)),
    )
    unpack(tmp_path / "r", entries)
    owners = {name: (os.lstat(tmp_path / "r" / name).st_uid, os.lstat(tmp_path / "r" / name).st_gid) for name in "fsd"}
    assert owners == {"f": (12345, 2**32 - 2), "s": (7, 8), "d": (9, 10)}
    assert os.lstat(tmp_path / "r" / "f").st_mode & 0o7777 == 0o4755
    assert os.lstat(tmp_path / "r" / "null").st_rdev == os.makedev(1, 3)
    assert os.lstat(tmp_path / "r" / "disk").st_rdev == os.makedev(7, 200)


def test_a_blob_is_told_by_its_bytes() -> None:
    """A media type that says gzip does not make a plain archive one."""
    raw = archive(file("x"))
    layer = Layer(Descriptor(OCI_LAYER_GZIP, Digest.of(raw), len(raw)), Digest.of(raw), lambda: io.BytesIO(raw))
    assert b"".join(inflate(layer.open())) == raw
