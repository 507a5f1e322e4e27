"""``verify`` finds every fault of a store, and ``mend`` takes away what cannot be trusted, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from moorage.puller.stock.verify import Kind
from moorage.puller.store import Store
from moorage.puller.unsynced import Unsynced

from tests.content import Content, index, nondistributable
from tests.stocked import HOST, diff_id, image_of_words, names_in, stock


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def content() -> Content:
    return image_of_words("one", ["base", "top"])


def test_a_sound_store_verifies(store: Store, content: Content) -> None:
    """Sparse indexes and foreign layers included."""
    stock(store, content, "app:one")
    stock(store, index([content, image_of_words("two", ["other"])]), "app:index")
    other = image_of_words("two", ["other"])
    for part in (other.digest, *(part.digest for part in other.blobs)):
        store.files.delete_blob(part)
    foreign = nondistributable()
    stock(store, foreign, "app:foreign")
    verified = store.verify()
    assert verified.defects == ()
    assert verified.names == 3
    assert store.prune().blobs == 0
    assert verified.size > 20_000


@pytest.mark.parametrize("victim", ["manifest", "config", "layer"])
@pytest.mark.parametrize("fault", ["flipped", "cut", "gone"])
def test_every_fault_is_found_and_mended(store: Store, content: Content, victim: str, fault: str) -> None:
    """The damaged blob goes, with the names that need it; whole images stay; the store verifies again."""
    stock(store, content, "app:one")
    stock(store, image_of_words("two", ["other"]), "app:two")
    digest = {"manifest": content.digest, "config": content.blobs[0].digest, "layer": content.blobs[2].digest}[victim]
    path = Path(store.files.blob_path(digest))
    raw = path.read_bytes()
    match fault:
        case "flipped":
            path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        case "cut":
            path.write_bytes(raw[:-1])
        case "gone":
            path.unlink()
    verified = store.verify()
    assert {(defect.kind, defect.digest) for defect in verified.defects} == {
        (Kind.LACKING, digest), *([] if fault == "gone" else [(Kind.DAMAGED, digest)]),
    }  # fmt: skip
    assert all(str(digest) in str(defect) for defect in verified.defects)
    assert store.mend(verified).names == (f"{HOST}/app:one",)
    assert store.verify().defects == ()
    assert names_in(store) == ["app:two"]
    stock(store, content, "app:one")
    assert store.verify().defects == ()


def test_a_doubtful_tree_is_told_and_mended(store: Store, content: Content) -> None:
    """It is dropped; the image stays."""
    Unsynced(store.root, boot="before").note(trees=[diff_id("base")])
    stock(store, content, "app:one")
    verified = store.verify()
    assert [(defect.kind, defect.digest) for defect in verified.defects] == [(Kind.DOUBTFUL, diff_id("base"))]
    assert store.mend(verified).trees == 1
    assert Store(store.root).verify().defects == ()
    assert names_in(store) == ["app:one"]


def test_mending_looks_again(store: Store, content: Content) -> None:
    """What another process put right meanwhile stays."""
    stock(store, content, "app:one")
    path = Path(store.files.blob_path(content.blobs[1].digest))
    raw = path.read_bytes()
    path.write_bytes(b"")
    verified = store.verify()
    path.write_bytes(raw)
    assert store.mend(verified).names == ()
    assert names_in(store) == ["app:one"]
