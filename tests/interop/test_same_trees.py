"""What we unpack is what umoci, podman and docker unpack: every path, kind, content, mode, owner, time, attribute.

Where a program differs, ``EXPLAINED`` says in which case and why; a difference that is not there fails, and so does an
explanation that no longer explains anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from moorage.puller.unpack.apply import unpack_layers

from tests.interop.corpus import CORPUS
from tests.interop.images import Layout
from tests.interop.programs import Program, find
from tests.interop.trees import differences, docker_tree, podman_tree, read_tree, umoci_tree
from tests.layers import layer_of

__all__ = ["EXPLAINED", "Explained", "check_alike"]


@dataclass(frozen=True, slots=True)
class Explained:
    """Why a program differs; ``paths``: what is not compared. None: it refuses the image."""

    reason: str
    paths: Mapping[str, tuple[str, ...]] | None = None


_IMPLIED = "layer.md says nothing of directories that no entry describes; ours do not depend on the time of unpacking"
_TOUCHED = "it unpacks over a copy of the lower layer, whose directory is changed by what is put into it"
_LINKED = "it gives the file the attributes in the header of its second name; GNU tar, bsdtar and umoci do not"
_TIMES = ("mtime",)
EXPLAINED: Mapping[tuple[str, str], Explained] = {
    ("umoci", "rule-7-missing-parents"): Explained(_IMPLIED, {"a": _TIMES, "a/b": _TIMES, ".": _TIMES}),
    ("umoci", "rule-15-global-comment"): Explained("0.4.7 does not know type g, which POSIX defines"),
    **{
        (program, case): explained
        for program in ("podman", "docker")
        for case, explained in {
            "rule-6-the-last-of-equals": Explained("it refuses what the spec says MUST NOT be; tar takes the last"),
            "rule-7-parents-of-lower-layers": Explained(_TOUCHED, {"d/sub": _TIMES}),
            "rule-9-hard-link-with-other-attributes": Explained(
                _LINKED, dict.fromkeys(("d/old", "twin"), ("mode", "owner"))
            ),
            "rule-10-parents-that-are-links": Explained(_TOUCHED, {"usr/lib": _TIMES}),
        }.items()
    },
    ("podman", "rule-7-missing-parents"): Explained(_IMPLIED, {"a": _TIMES, "a/b": _TIMES}),
    ("docker", "rule-7-missing-parents"): Explained(
        _IMPLIED + ", nor are they closed to all but root", dict.fromkeys(("a", "a/b"), ("mode", "mtime"))
    ),
}
_NO_ROOT_ENTRY = frozenset(
    name for name, layers in CORPUS.items() if not any(b"./" in layer[:1024] for layer in layers)
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus as one OCI layout."""
    place = tmp_path_factory.mktemp("corpus") / "layout"
    layout = Layout(place)
    for name, layers in CORPUS.items():
        layout.name(name, layout.image(*layers))
    layout.finish()
    return place


Unpack = Callable[[str], Path]


@pytest.fixture(params=["umoci", "podman", "docker"])
def other(request: pytest.FixtureRequest, images: Path, tmp_path: Path) -> Iterator[tuple[str, Unpack]]:
    """Another program's name, and how it unpacks an image of the corpus."""
    if request.param == "umoci":
        program = Program((find("umoci"),), tmp_path / "umoci")
        yield "umoci", lambda tag: umoci_tree(program, images, tag, tmp_path / "bundle")
    elif request.param == "podman":
        podman = request.getfixturevalue("podman")
        yield "podman", lambda tag: podman_tree(podman, images, tag)
        podman("image", "unmount", "--all")
    else:
        docker, skopeo = request.getfixturevalue("docker"), request.getfixturevalue("skopeo")
        yield "docker", lambda tag: docker_tree(docker, skopeo, images, tag, tmp_path)


@pytest.mark.parametrize("name", CORPUS)
def test_root_unpacks_alike(name: str, other: tuple[str, Unpack], tmp_path: Path) -> None:
    """As root."""
    program, unpack = other
    unpack_layers([layer_of(layer) for layer in CORPUS[name]], str(tmp_path / "ours"))
    check_alike(program, name, EXPLAINED, tmp_path / "ours", lambda: unpack(name))


def check_alike(
    program: str,
    name: str,
    explanations: Mapping[tuple[str, str], Explained],
    ours: Path,
    unpack: Callable[[], Path],
    *,
    is_implied_free: bool = False,
) -> None:
    """Compares our tree with the one that ``unpack`` makes; what is explained must differ, and nothing else may.

    Args:
        is_implied_free: times of the root and of directories that no entry describes (0 in ours) are not compared.
    """
    explained = explanations.get((program, name))
    if explained and explained.paths is None:
        with pytest.raises(AssertionError):
            unpack()
        return
    mine = read_tree(ours)
    found = _Differences(differences(mine, read_tree(unpack())))
    if is_implied_free:
        implied = [path for path, node in mine.items() if node.kind == "d" and node.mtime == 0]
        found.explain(dict.fromkeys([*implied, "."], ("mtime",)), may_be_absent=True)
    found.explain({".": ("mtime", "mode")} if program != "umoci" or name in _NO_ROOT_ENTRY else {}, may_be_absent=True)
    found.explain(explained.paths or {} if explained else {})
    assert found.left == []


class _Differences:
    """What differs, less what is explained."""

    def __init__(self, found: list[str]) -> None:
        self.left = found

    def explain(self, paths: Mapping[str, tuple[str, ...]], *, may_be_absent: bool = False) -> None:
        """Takes out what may differ; it must, unless ``may_be_absent``."""
        for name, slots in paths.items():
            for slot in slots:
                rest = [line for line in self.left if not line.startswith(f"{name!r}: {slot}")]
                assert may_be_absent or len(rest) < len(self.left), f"{name}: {slot} does not differ any more"
                self.left = rest
