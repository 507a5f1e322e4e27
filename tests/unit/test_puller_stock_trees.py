"""``verify`` compares the trees of a store with their layers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from moorage.puller import entries
from moorage.puller.stock.verify import Kind
from moorage.puller.store import Store
from moorage.puller.unpacked import make_tree
from moorage.registry.oci import Digest, RepositoryName

from tests.content import push
from tests.layers import archive, directory, file, hard_link, layer_of, node, symlink
from tests.pulled import image_of

_RAW = archive(
    directory("etc"),
    file("etc/motd", b"hello"),
    symlink("etc/link", "motd"),
    file("bin/.wh.old"),
    file("bin/x"),
    hard_link("bin/y", "bin/x"),
    file("secret", b"secret", mode=0),
)


def _store_of(raw: bytes, root: Path) -> Store:
    store = Store(str(root))
    asyncio.run(push(store.view("localhost:5000"), RepositoryName("app"), image_of(raw), "one"))
    make_tree(store, layer_of(raw))
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one image of one layer, and its tree."""
    return _store_of(_RAW, tmp_path / "store")


def _point(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def test_a_tree_that_is_its_layer(store: Store) -> None:
    """Files that their owner may not read included."""
    assert (store.verify().defects, store.verify().trees) == ((), 1)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        pytest.param(lambda tree: (tree / "etc" / "motd").write_text("hullo"), "etc/motd", id="a byte"),
        pytest.param(lambda tree: (tree / "etc" / "motd").write_text("hello!"), "etc/motd", id="longer"),
        pytest.param(lambda tree: (tree / "etc" / "motd").unlink(), "etc/motd", id="gone"),
        pytest.param(lambda tree: (tree / "bin" / ".wh.old").unlink(), "bin/.wh.old", id="a whiteout gone"),
        pytest.param(lambda tree: (tree / "bin" / "more").touch(), "bin/more", id="one more"),
        pytest.param(lambda tree: (tree / "bin" / "x").chmod(0o4755), "bin/x", id="setuid"),
        pytest.param(lambda tree: _point(tree / "etc" / "link", "x"), "etc/link", id="a link elsewhere"),
        pytest.param(lambda tree: _point(tree / "etc" / "motd", "link"), "etc/motd", id="a link instead"),
    ],
)
def test_a_changed_tree_is_told_and_mended(store: Store, change: Callable[[Path], object], path: str) -> None:
    """With the first path that differs; it is dropped, the image stays, and looking has left nothing behind."""
    change(Path(store.tree_path(Digest.of(_RAW))))
    verified = store.verify()
    assert [(found.kind, found.digest, found.path) for found in verified.defects] == [
        (Kind.CHANGED, Digest.of(_RAW), path)
    ]
    assert path in str(verified.defects[0])
    assert store.mend(verified).trees == 1
    assert list(Path(store.root, "staging").iterdir()) == []
    assert (store.verify().defects, [image.name for image in store.images()]) == ((), ["localhost:5000/app:one"])


@pytest.mark.root
@pytest.mark.parametrize(
    ("mode", "content", "is_changed"),
    [
        pytest.param(0o600, b"", False, id="a placeholder"),
        pytest.param(0o644, b"", True, id="of another mode"),
        pytest.param(0o600, b"x", True, id="with a content"),
    ],
)
def test_a_device_and_what_stands_for_it(tmp_path: Path, mode: int, content: bytes, is_changed: bool) -> None:
    """Whoever pulls without the right to make devices, and whoever verifies with it, need not be the same."""
    raw = archive(node("null", entries.Kind.CHARACTER_DEVICE, (1, 3)))
    store = _store_of(raw, tmp_path / "store")
    device = Path(store.tree_path(Digest.of(raw)), "null")
    assert device.is_char_device()
    device.unlink()
    device.write_bytes(content)
    device.chmod(mode)
    assert [found.path for found in store.verify().defects] == (["null"] if is_changed else [])
