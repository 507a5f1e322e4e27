"""What was published without waiting for the disk is doubted after the machine started again, and only then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.unsynced import Unsynced, boot_id
from moorage.registry.oci import BlobUnknown, Digest

_GOOD, _BAD, _TREE = Digest.of(b"good"), Digest.of(b"bad"), Digest.of(b"tree")


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def files(root: str) -> LayoutFiles:
    """A layout whose blobs were published unsynced before the machine started again; one did not reach the disk."""
    Unsynced(root, boot="before").note(blobs=[_GOOD, _BAD], trees=[_TREE])
    os.makedirs(os.path.join(root, "blobs", "sha256"))
    Path(root, "blobs", "sha256", _GOOD.hex).write_bytes(b"good")
    Path(root, "blobs", "sha256", _BAD.hex).write_bytes(bytes(3))
    return LayoutFiles(root, create=True)


def test_the_same_boot_is_trusted(root: str) -> None:
    """A kill does not lose what the kernel has."""
    Unsynced(root).note(blobs=[_GOOD], trees=[_TREE])
    assert not Unsynced(root).is_doubtful_blob(_GOOD)
    assert not Unsynced(root).is_doubtful_tree(_TREE)
    assert os.listdir(os.path.join(root, "unsynced")) == [boot_id()]


def test_another_boot_is_doubted(root: str) -> None:
    """Blobs and trees apart, and only what was noted."""
    Unsynced(root, boot="before").note(blobs=[_GOOD], trees=[_TREE])
    now = Unsynced(root)
    assert now.is_doubtful_blob(_GOOD)
    assert now.is_doubtful_tree(_TREE)
    assert not now.is_doubtful_tree(_GOOD)
    assert not now.is_doubtful_blob(_TREE)


def test_a_doubtful_blob_that_holds_is_admitted(files: LayoutFiles, root: str) -> None:
    """It is hashed once, not every time."""
    assert files.has_blob(_GOOD)
    assert not Unsynced(root).is_doubtful_blob(_GOOD)


@pytest.mark.parametrize("ask", ["has", "stat", "open"])
def test_a_damaged_blob_is_not_there(files: LayoutFiles, ask: str) -> None:
    """So it is fetched again, whoever asks first."""
    match ask:
        case "has":
            assert not files.has_blob(_BAD)
        case "stat":
            with pytest.raises(BlobUnknown):
                files.stat_blob(_BAD)
        case "open":
            with pytest.raises(BlobUnknown):
                files.open_blob(_BAD)
    assert not os.path.exists(files.blob_path(_BAD))
    files.place_blob(b"bad", _BAD)
    assert LayoutFiles(files.root).stat_blob(_BAD) == 3


def test_published_anew_it_is_no_longer_doubted(files: LayoutFiles, root: str) -> None:
    """What the note was about is gone."""
    Path(root, "part").write_bytes(b"bad")
    files.unsynced.note(blobs=[_BAD])
    files.publish(os.path.join(root, "part"), _BAD, synced=False)
    assert not Unsynced(root).is_doubtful_blob(_BAD)
    assert Unsynced(root, boot="after").is_doubtful_blob(_BAD)


def test_settled_notes_are_forgotten(root: str) -> None:
    """All is on the disk then; those of another boot stay, nobody has looked at their subjects."""
    Unsynced(root, boot="before").note(blobs=[_BAD])
    now = Unsynced(root)
    now.note(blobs=[_GOOD])
    now.settle()
    assert not Unsynced(root, boot="after").is_doubtful_blob(_GOOD)
    assert Unsynced(root, boot="after").is_doubtful_blob(_BAD)
    now.note(blobs=[_GOOD])
    assert Unsynced(root, boot="after").is_doubtful_blob(_GOOD)


def test_another_process_may_settle_meanwhile(root: str) -> None:
    """A note that is gone is written again."""
    first = Unsynced(root)
    first.note(blobs=[_GOOD])
    Unsynced(root).settle()
    first.note(blobs=[_GOOD])
    assert Unsynced(root, boot="after").is_doubtful_blob(_GOOD)


def test_a_renewed_tree_is_trusted(files: LayoutFiles, root: str) -> None:
    """And with the last note the other boot is forgotten."""
    files.unsynced.renewed_tree(_TREE)
    assert not Unsynced(root).is_doubtful_tree(_TREE)
    files.unsynced.renewed_blob(_GOOD)
    files.unsynced.renewed_blob(_BAD)
    assert os.listdir(os.path.join(root, "unsynced")) == []
