"""Layers become the tree that the image specification describes (layer.md)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from moorage.puller.entries import Entry, Kind
from moorage.puller.errors import BrokenLayer, TargetExists, UnsafeLayer
from moorage.puller.unpack.apply import Layer, unpack_layers
from moorage.registry.oci import Digest

from tests.layers import archive, directory, file, hard_link, layer_of, node, seen, symlink, unpack

_LOWER = (directory("d"), file("d/old", b"old"), directory("d/sub"), file("d/sub/deep", b"deep"), file("top", b"top"))


def test_layers_are_applied_in_order(tmp_path: Path) -> None:
    """A later layer adds, replaces and leaves the rest alone."""
    unpack(tmp_path / "r", _LOWER, (file("top", b"new", mode=0o600), file("d/more", b"more")))
    assert seen(tmp_path / "r") == {
        "d": "dir 0755",
        "d/old": "file 0644 old",
        "d/more": "file 0644 more",
        "d/sub": "dir 0755",
        "d/sub/deep": "file 0644 deep",
        "top": "file 0600 new",
    }


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_every_compression_gives_the_same_tree(tmp_path: Path, compression: str) -> None:
    """Told by the first bytes, whatever the media type says."""
    done = unpack_layers([layer_of(archive(*_LOWER), compression)], str(tmp_path / "r"))
    assert (done.entries, done.size) == (5, len(archive(*_LOWER)))
    assert seen(tmp_path / "r")["d/sub/deep"] == "file 0644 deep"


@pytest.mark.parametrize(
    ("upper", "gone"),
    [
        pytest.param((file("d/.wh.old"),), {"d/old"}, id="a file"),
        pytest.param((file(".wh.top"),), {"top"}, id="at the root"),
        pytest.param((file("d/.wh.sub"),), {"d/sub", "d/sub/deep"}, id="a directory"),
        pytest.param((file(".wh.never"), file("never/.wh.was"), file("top/.wh.x")), set(), id="what is not there"),
        pytest.param((symlink("d/.wh.old", "x"),), {"d/old"}, id="of any type"),
        pytest.param((file("d/.wh..wh..opq"),), {"d/old", "d/sub", "d/sub/deep"}, id="opaque"),
        pytest.param((file(".wh..wh..opq"),), {"d", "d/old", "d/sub", "d/sub/deep", "top"}, id="opaque root"),
        pytest.param((file("d/.wh..wh.plnk"), file(".wh..wh.aufs")), set(), id="leftovers of aufs"),
    ],
)
def test_whiteouts_remove_from_lower_layers(tmp_path: Path, upper: tuple, gone: set[str]) -> None:  # type: ignore[type-arg]
    """And never appear themselves."""
    unpack(tmp_path / "all", _LOWER)
    unpack(tmp_path / "r", _LOWER, upper)
    assert set(seen(tmp_path / "all")) - set(seen(tmp_path / "r")) == gone
    assert not any(".wh." in name for name in seen(tmp_path / "r"))


@pytest.mark.parametrize("order", [1, -1], ids=["marker first", "marker last"])
@pytest.mark.parametrize(
    ("members", "expected"),
    [
        pytest.param(
            (file("d/.wh..wh..opq"), directory("d"), file("d/new", b"new")), {"d", "d/new", "top"}, id="opaque"
        ),
        pytest.param(
            (file("d/.wh..wh..opq"), directory("d/sub"), file("d/sub/new", b"new")),
            {"d", "d/sub", "d/sub/new", "top"},
            id="opaque above a directory that is written",
        ),
        pytest.param((file("d/.wh.sub"), file("d/sub/new", b"new")), {"d", "d/old", "d/sub", "d/sub/new", "top"},
                     id="a directory whose child is written"),
        pytest.param((file("d/.wh.old"), file("d/old", b"new")), {"d", "d/old", "d/sub", "d/sub/deep", "top"},
                     id="a file of the same name"),
    ],
)  # fmt: skip
def test_whiteouts_spare_their_own_layer(
    tmp_path: Path,
    members: tuple[Any, ...],
    expected: set[str],
    order: int,
) -> None:
    """Wherever the marker stands in the archive."""
    unpack(tmp_path / "r", _LOWER, members[::order])
    assert set(seen(tmp_path / "r")) == expected


def test_whiteouts_know_files_by_their_real_place(tmp_path: Path) -> None:
    """A file written through a link of a lower layer is spared by a whiteout that names its real directory."""
    lower = (directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), file("usr/lib/old"))
    unpack(tmp_path / "r", lower, (file("lib/new"), file("usr/lib/.wh..wh..opq")))
    assert set(seen(tmp_path / "r")) == {"usr", "usr/lib", "usr/lib/new", "lib"}


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        pytest.param(file("x", b"1"), directory("x", mode=0o700), "dir 0700", id="file to directory"),
        pytest.param(directory("x"), file("x", b"2"), "file 0644 2", id="directory to file"),
        pytest.param(directory("x"), symlink("x", "y"), "-> y", id="directory to symlink"),
        pytest.param(symlink("x", "y"), directory("x"), "dir 0755", id="symlink to directory"),
        pytest.param(symlink("x", "y"), file("x", b"2"), "file 0644 2", id="symlink to file"),
        pytest.param(symlink("x", "y"), symlink("x", "z"), "-> z", id="symlink to symlink"),
        pytest.param(file("x", b"1"), node("x", Kind.FIFO), "p", id="file to FIFO"),
        pytest.param(directory("x"), directory("x", mode=0o750), "dir 0750", id="directory to directory"),
    ],
)
def test_an_entry_replaces_what_exists(tmp_path: Path, lower, upper, expected: str) -> None:  # type: ignore[no-untyped-def]
    """Whatever the two are; only a directory that meets a directory stays, with new attributes."""
    unpack(tmp_path / "r", (lower, file("y", b"untouched")), (upper,))
    assert seen(tmp_path / "r")["x"] == expected
    assert seen(tmp_path / "r")["y"] == "file 0644 untouched"


def test_a_directory_keeps_its_children_when_it_is_described_again(tmp_path: Path) -> None:
    """Only its attributes are replaced."""
    unpack(tmp_path / "r", _LOWER, (directory("d", mode=0o700),))
    assert seen(tmp_path / "r")["d"] == "dir 0700"
    assert "d/sub/deep" in seen(tmp_path / "r")


def test_of_equal_names_the_last_wins(tmp_path: Path) -> None:
    """Within one archive, too."""
    unpack(tmp_path / "r", (file("x", b"first"), file("x", b"second"), directory("x"), file("x/y", b"third")))
    assert seen(tmp_path / "r") == {"x": "dir 0755", "x/y": "file 0644 third"}


def test_missing_parents_are_made(tmp_path: Path) -> None:
    """Open to read, and older than everything, so that the tree does not depend on when it was unpacked."""
    unpack(tmp_path / "r", (file("a/b/c"),))
    assert seen(tmp_path / "r") == {"a": "dir 0755", "a/b": "dir 0755", "a/b/c": "file 0644 x"}
    assert (tmp_path / "r" / "a").stat().st_mtime_ns == 0


@pytest.mark.parametrize("name", ["./d/x", "/d/x", "d//x", "d/./x", "./././d/x"])
def test_names_are_relative_to_the_root(tmp_path: Path, name: str) -> None:
    """Leading slashes and dots mean nothing; images with absolute names exist."""
    unpack(tmp_path / "r", (file(name),))
    assert set(seen(tmp_path / "r")) == {"d", "d/x"}


def test_the_root_entry_gives_the_root_its_attributes(tmp_path: Path) -> None:
    """``./`` with a mode."""
    unpack(tmp_path / "r", (directory("./", mode=0o711), file("x")))
    assert (tmp_path / "r").stat().st_mode & 0o7777 == 0o711


def test_a_root_without_entry_is_open_to_read(tmp_path: Path) -> None:
    """The private mode of the staging directory does not stay."""
    unpack(tmp_path / "r", (file("x"),))
    assert (tmp_path / "r").stat().st_mode & 0o7777 == 0o755


def test_link_targets_are_kept_as_they_are(tmp_path: Path) -> None:
    """Absolute, climbing and dangling targets are data."""
    targets: list[str | bytes] = ["/etc/passwd", "../../../../etc", "no/where", "loop", b"\xff\xfe"]
    unpack(tmp_path / "r", tuple(symlink(f"l{n}", target) for n, target in enumerate(targets)))
    assert [os.readlink(os.fsencode(tmp_path / "r" / f"l{n}")) for n in range(5)] == [os.fsencode(t) for t in targets]


def test_parents_that_are_links_are_followed_inside_the_root(tmp_path: Path) -> None:
    """Relative and absolute, also where the target does not exist yet."""
    lower = (
        directory("usr"),
        symlink("lib", "usr/lib"),
        symlink("bin", "/usr/bin"),
        symlink("up", "../../usr"),
        directory("a/b"),
        symlink("a/b/root", "/"),
        symlink("a/b/beside", "../x"),
    )
    upper = (file("lib/a"), file("bin/b"), file("up/c"), file("a/b/root/usr/d"), file("a/b/beside/e"))
    unpack(tmp_path / "r", lower, upper)
    assert {"usr/lib/a", "usr/bin/b", "usr/c", "usr/d", "a/x/e"} <= set(seen(tmp_path / "r"))


def test_hard_links_share_their_file(tmp_path: Path) -> None:
    """With a name of the same layer or of a lower one, absolute names included."""
    unpack(tmp_path / "r", (file("a", b"one"), hard_link("b", "a")), (hard_link("d/c", "/a"), hard_link("e", "./b")))
    inodes = {(tmp_path / "r" / name).stat().st_ino for name in ("a", "b", "d/c", "e")}
    assert len(inodes) == 1


def test_replacing_one_name_leaves_the_others(tmp_path: Path) -> None:
    """Never through the inode."""
    unpack(tmp_path / "r", (file("a", b"one"), hard_link("b", "a")), (file("a", b"two"),))
    assert seen(tmp_path / "r") == {"a": "file 0644 two", "b": "file 0644 one"}


def test_a_hard_link_to_a_symlink_is_a_symlink(tmp_path: Path) -> None:
    """The last component is not followed."""
    unpack(tmp_path / "r", (file("t", b"target"), symlink("s", "t"), hard_link("h", "s")))
    assert seen(tmp_path / "r")["h"] == "-> t"


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o000, 0o444, 0o664, 0o7777])
def test_modes_are_kept_to_the_last_bit(tmp_path: Path, mode: int) -> None:
    """Of files and directories; umask means nothing."""
    unpack(tmp_path / "r", (file("f", mode=mode), directory("d", mode=mode | 0o500), file("d/x")))
    assert (tmp_path / "r" / "f").lstat().st_mode & 0o7777 == mode
    assert (tmp_path / "r" / "d").lstat().st_mode & 0o7777 == mode | 0o500


def test_times_are_kept_to_the_nanosecond(tmp_path: Path) -> None:
    """Of files, links, and of directories although things were put into them afterwards."""
    odd = 1_234_567_890_123_456_789
    members = [
        (Entry(b"d", Kind.DIRECTORY, 0o755, os.geteuid(), os.getegid(), odd), b""),
        (Entry(b"d/s", Kind.SYMLINK, 0o777, os.geteuid(), os.getegid(), odd - 1, link=b"x"), b""),
        (Entry(b"d/f", Kind.FILE, 0o644, os.geteuid(), os.getegid(), -1_500_000_000), b""),
    ]
    unpack(tmp_path / "r", tuple(members), (file("d/later"), file("d/.wh.never")))
    root = tmp_path / "r"
    times = [(root / name).lstat().st_mtime_ns for name in ("d", "d/s", "d/f")]
    assert times == [odd, odd - 1, -1_500_000_000]


def test_names_need_not_be_text(tmp_path: Path) -> None:
    """Bytes go in and come out."""
    names = [b"\xff\xfe", "Ναύτης".encode(), b"new\nline", b" ", b"-rf", b"a" * 255, b"d/" * 60 + b"long"]
    unpack(tmp_path / "r", tuple(file(name) for name in names))
    assert all(os.path.exists(os.path.join(os.fsencode(tmp_path / "r"), name)) for name in names)


@pytest.mark.parametrize("kind", [bytes, dict], ids=["content", "nothing"])
def test_an_existing_target_is_left_alone(tmp_path: Path, kind: type) -> None:
    """Unless it is an empty directory."""
    target = tmp_path / "r"
    target.mkdir()
    if kind is bytes:
        (target / "mine").write_text("mine")
        with pytest.raises(TargetExists):
            unpack(target, (file("x"),))
        assert seen(target) == {"mine": "file 0644 mine"}
    else:
        unpack(target, (file("x"),))
        assert set(seen(target)) == {"x"}


def test_a_wrong_diff_id_leaves_nothing(tmp_path: Path) -> None:
    """All was written, and nothing appears (rule U18)."""
    honest = layer_of(archive(file("x")))
    lying = Layer(honest.descriptor, Digest.of(b"something else"), honest.open)
    with pytest.raises(BrokenLayer, match="not the layer"):
        unpack_layers([honest, lying], str(tmp_path / "r"))
    assert list(tmp_path.iterdir()) == []


def test_a_refused_layer_leaves_nothing(tmp_path: Path) -> None:
    """Neither the target nor the staging directory, read-only directories included."""
    with pytest.raises(UnsafeLayer):
        unpack(tmp_path / "r", (directory("d", mode=0o500), file("d/x"), symlink("l", "/"), file("../out")))
    assert list(tmp_path.iterdir()) == []


def test_of_many_unpackers_into_one_place_one_wins(tmp_path: Path) -> None:
    """The others are told so, and clean up."""
    layer = layer_of(archive(*(file(f"f{number}") for number in range(300))))

    def attempt() -> str:
        try:
            unpack_layers([layer], str(tmp_path / "r"))
        except TargetExists:
            return "late"
        return "won"

    with ThreadPoolExecutor(6) as pool:
        results = [future.result() for future in [pool.submit(attempt) for _ in range(6)]]
    assert sorted(results) == ["late"] * 5 + ["won"]
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    assert len(seen(tmp_path / "r")) == 300


def test_an_image_without_layers_is_an_empty_root(tmp_path: Path) -> None:
    """It is an image all the same."""
    unpack(tmp_path / "r")
    assert seen(tmp_path / "r") == {}
