"""Without rights we unpack what umoci and podman unpack: with owners recorded, and in a user namespace.

Differences are explained as in ``test_same_trees``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.interop.corpus import CORPUS
from tests.interop.images import Layout
from tests.interop.programs import Program, find
from tests.interop.test_same_trees import EXPLAINED as AS_ROOT
from tests.interop.test_same_trees import Explained, check_alike
from tests.interop.trees import podman_tree, umoci_tree
from tests.somebody import make_somebody, run_as_somebody

_UNPACK_ALL = """
    import os
    from moorage.puller.unpack.apply import unpack_layers
    from moorage.puller.unpack.namespace import enter_namespace
    from moorage.puller.unpack.owners import OwnerMode
    place, mode = sys.argv[1:]
    if mode == "keep":
        enter_namespace()
    for case in sorted(os.listdir(place + "/layers")):
        folder = f"{place}/layers/{case}"
        layers = [tests.layers.layer_of(open(f"{folder}/{n}", "rb").read()) for n in sorted(os.listdir(folder))]
        unpack_layers(layers, f"{place}/{mode}/{case}", owners=OwnerMode(mode))
"""
_EXPLAINED: Mapping[tuple[str, str], Explained] = {
    **{key: explained for key, explained in AS_ROOT.items() if key[0] != "docker"},
    ("podman", "rule-12-big-owners"): Explained("it refuses what the lent ids do not hold; we leave it to the caller"),
    ("podman", "rule-14-devices"): Explained(
        "it leaves devices out; umoci and we put empty files", dict.fromkeys(("disk", "null"), ("only ours",))
    ),
}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory of the user's: the corpus as a layout, as single layers, and unpacked by us in both ways."""
    user = make_somebody()
    with tempfile.TemporaryDirectory(prefix="m-", ignore_cleanup_errors=True) as name:
        place = Path(name)
        layout = Layout(place / "layout")
        for case, layers in CORPUS.items():
            layout.name(case, layout.image(*layers))
            (place / "layers" / case).mkdir(parents=True)
            for number, layer in enumerate(layers):
                (place / "layers" / case / str(number)).write_bytes(layer)
        layout.finish()
        shutil.chown(place, user.pw_uid, user.pw_gid)
        for mode in ("keep", "record"):
            done = run_as_somebody(_UNPACK_ALL, str(place), mode)
            assert (done.returncode, done.stderr) == (0, "")
        yield place


def _as_somebody(*command: str, home: Path) -> Program:
    user = make_somebody()
    setpriv = ("setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups")
    home.mkdir(exist_ok=True)
    os.chown(home, user.pw_uid, user.pw_gid)
    return Program((*setpriv, *command), home, {"USER": user.pw_name, "XDG_RUNTIME_DIR": str(home)})


@pytest.mark.parametrize("case", CORPUS)
def test_recorded_as_by_umoci(case: str, place: Path) -> None:
    """``umoci unpack --rootless`` and ``--owner record``."""
    umoci, layout, bundle = _as_somebody(find("umoci"), home=place / "home"), place / "layout", place / "umoci" / case
    ours = place / "record" / case
    check_alike("umoci", case, _EXPLAINED, ours, lambda: umoci_tree(umoci, layout, case, bundle, "--rootless"))


@pytest.fixture(scope="module")
def podman(place: Path) -> Program:
    """podman as that user."""
    store = ("--root", f"{place}/store", "--runroot", f"{place}/run", "--storage-driver", "vfs")
    return _as_somebody(find("podman"), *store, home=place / "home")


@pytest.mark.parametrize("case", CORPUS)
def test_kept_as_by_podman(case: str, place: Path, podman: Program) -> None:
    """``podman unshare`` and ``--owner keep``: the same lent ids."""
    mount = ("unshare", *podman.command[6:])
    ours, layout = place / "keep" / case, place / "layout"
    check_alike("podman", case, _EXPLAINED, ours, lambda: podman_tree(podman, layout, case, *mount))
