"""A file system that takes two spellings for one name, as macOS has: NTFS through FUSE, ignoring case.

This one also keeps names in lower case, so what it is given here has no others but where they collide (rule U14).
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from moorage.puller.errors import UnsafeLayer

from tests.interop.programs import find
from tests.layers import directory, file, hard_link, seen, symlink, unpack


@pytest.fixture(scope="module")
def folding() -> Iterator[Path]:
    """The mounted file system."""
    with tempfile.TemporaryDirectory(prefix="moorage-") as name:
        image, mount = Path(name) / "image", Path(name) / "mnt"
        with image.open("wb") as file_:
            file_.truncate(16 << 20)
        mount.mkdir()
        subprocess.run([find("mkntfs"), "-q", "-F", "-f", image], check=True, capture_output=True)
        options = "ignore_case,permissions,streams_interface=xattr"
        subprocess.run([find("lowntfs-3g"), image, mount, "-o", options], check=True, capture_output=True)
        try:
            yield mount
        finally:
            subprocess.run(["umount", mount], check=True)


def test_names_of_one_spelling_are_unpacked(folding: Path) -> None:
    """Again and again, through links and over what exists."""
    lower = (directory("d"), file("d/x"), symlink("l", "d"), file("l/y"), hard_link("z", "d/x"))
    unpack(folding / "fine", lower, (file("d/x", b"new"), file("d/.wh.y", b""), directory("d")))
    assert set(seen(folding / "fine")) == {"d", "d/x", "l", "z"}


@pytest.mark.parametrize(
    "members",
    [
        pytest.param((file("x", b"1"), file("X", b"2")), id="files"),
        pytest.param((directory("x"), directory("X")), id="directories"),
        pytest.param((directory("x"), file("X/y")), id="a parent"),
        pytest.param((file("x"), symlink("X", "y")), id="a link"),
        pytest.param((file("x"), file("y"), hard_link("X", "y")), id="a hard link"),
        pytest.param((file("x"), hard_link("y", "X")), id="the target of a hard link"),
        pytest.param((directory("d"), symlink("l", "D"), file("l/x")), id="the target of a link"),
    ],
)
def test_names_that_collide_are_refused(folding: Path, members) -> None:  # type: ignore[no-untyped-def]
    """One would silently become the other (CVE-2021-37701)."""
    with pytest.raises(UnsafeLayer, match="in a way that is lost here"):
        unpack(folding / "refused", members)
    assert not (folding / "refused").exists()


def test_a_whiteout_means_its_own_spelling(folding: Path) -> None:
    """What has another stays."""
    unpack(folding / "hidden", (file("x"), file("y")), (file(".wh.X", b""), file(".wh.y", b"")))
    assert set(seen(folding / "hidden")) == {"x"}
