"""Hostile layers that we accept give the tree that umoci gives; where not, ``_EXPLAINED`` says why."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from moorage.puller.unpack.apply import unpack_layers

from tests.hostile.attacks import ATTACKS
from tests.interop.images import Layout
from tests.interop.programs import Program, find
from tests.interop.test_same_trees import Explained, check_alike
from tests.interop.trees import umoci_tree
from tests.layers import archive, directory, file, layer_of, symlink

_TOO_LONG_TO_LOOK_AT = ("path-4096",)  # below another directory it is longer than a path may be
_ACCEPTED = [name for name, attack in ATTACKS.items() if attack.is_accepted and name not in _TOO_LONG_TO_LOOK_AT]
_LOWER = archive(directory("./"), directory("d"), file("d/old"), file("own"), symlink("link", "d"))
_TOUCHED = "it does not restore the time of a directory in which it makes one that no entry describes"
_EXPLAINED: Mapping[tuple[str, str], Explained] = {
    ("umoci", "depth-256"): Explained(_TOUCHED, {"d": ("mtime",)}),
    ("umoci", "whiteout-flood"): Explained(_TOUCHED, {"d": ("mtime",)}),
    ("umoci", "mtime-huge"): Explained("its seconds run over; the file system clamps ours", {"x": ("mtime",)}),
    ("umoci", "xattr-overlay"): Explained(
        "it leaves out what overlayfs calls opaque; rule 13 does not", {"x": ("xattrs",)}
    ),
    ("umoci", "global-comment"): Explained("0.4.7 does not know type g, which POSIX defines"),
    ("umoci", "sparse-old"): Explained("0.4.7 does not know type S, which rule 15 names"),
}


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Path, Mapping[str, list[bytes]]]]:
    """A layout of all accepted kinds, each above another layer, and their layers."""
    with tempfile.TemporaryDirectory(prefix="moorage-") as name:
        (Path(name) / "outside").mkdir()
        images = {case: [_LOWER, ATTACKS[case].make(f"{name}/outside")] for case in _ACCEPTED}
        layout = Layout(Path(name) / "layout")
        for number, layers in enumerate(images.values()):
            layout.name(f"case-{number}", layout.image(*layers))
        layout.finish()
        yield Path(name), images


@pytest.mark.parametrize("name", _ACCEPTED)
def test_what_we_accept_umoci_unpacks_alike(
    name: str, place: tuple[Path, Mapping[str, list[bytes]]], tmp_path: Path
) -> None:
    """Every path and attribute; directories that no entry describes have no time to compare."""
    umoci, tag = Program((find("umoci"),), tmp_path / "umoci"), f"case-{_ACCEPTED.index(name)}"
    unpack_layers([layer_of(layer) for layer in place[1][name]], str(tmp_path / "ours"))

    def unpack() -> Path:
        return umoci_tree(umoci, place[0] / "layout", tag, tmp_path / "bundle")

    check_alike("umoci", name, _EXPLAINED, tmp_path / "ours", unpack, is_implied_free=True)
