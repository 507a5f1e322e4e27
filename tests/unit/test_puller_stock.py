"""The store's own verbs: what it lists, names and gives back."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from moorage.puller.errors import ImageError, LayoutInvalid, StoreInUse
from moorage.puller.fetch.ingest import Ingest
from moorage.puller.store import Store
from moorage.puller.unsynced import Unsynced
from moorage.registry.oci import Descriptor, Digest, Reference, RepositoryName, Tag
from moorage.registry.oci.media_types import OCI_LAYER

from tests.content import index
from tests.stocked import CREATED, HOST, diff_id, image_of_words, names_in, reference_to, stock


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def _has(store: Store, *layers: str) -> bool:
    """Whether blob and tree of the layers are there: all, or none."""
    there = {store.files.has_blob(diff_id(name)) for name in layers}
    there |= {os.path.isdir(store.tree_path(diff_id(name))) for name in layers}
    assert len(there) == 1, "some are there and some are not"
    return there.pop()


def test_images_are_listed_with_what_they_share(store: Store) -> None:
    """Sizes of blobs that are here, platform, ages."""
    one = stock(store, image_of_words("one", ["base", "top"]), "app:one", age=100)
    stock(store, image_of_words("two", ["base"]), "app:two")
    first, second = store.images()
    assert first.name == f"{HOST}/app:one"
    assert first.descriptor.digest == one.digest
    assert first.platforms == ("linux/amd64",)
    assert first.size == sum(part.descriptor.size for part in one.blobs) + one.descriptor.size
    assert (first.shared, second.shared) == (10_000, 10_000)
    assert first.created == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert first.used is not None
    assert second.used is not None
    assert 90 < (second.used - first.used).total_seconds() < 200


def test_an_index_shows_the_platforms_that_are_here(store: Store) -> None:
    """Whatever else it names."""
    stock(store, index([image_of_words("a"), image_of_words("b", ["top"])]), "app:index")
    assert [image.platforms for image in store.images() if image.name.endswith(":index")] == [("linux/amd64",)]


def test_history_tells_which_step_made_which_layer(store: Store) -> None:
    """Steps that only changed the config have no layer."""
    steps = [
        {"created": CREATED, "created_by": "ADD base"},
        {"created": "nonsense", "created_by": "ENV A=b", "empty_layer": True},
        {"created_by": "RUN make", "comment": "buildkit"},
    ]
    content = stock(store, image_of_words("one", ["base", "top"], history=steps), "app:one")
    history = store.history(reference_to("app:one"))
    assert (history.platform, history.size) == ("linux/amd64", 20_000)
    assert [step.created_by for step in history.steps] == ["ADD base", "ENV A=b", "RUN make"]
    assert [step.layer and step.layer.digest for step in history.steps] == [
        content.blobs[1].digest, None, content.blobs[2].digest,
    ]  # fmt: skip
    assert [step.diff_id for step in history.steps] == [diff_id("base"), None, diff_id("top")]
    assert [step.created is None for step in history.steps] == [False, True, True]
    assert history.steps[2].comment == "buildkit"


@pytest.mark.parametrize(
    "history", [None, [], [{"created_by": "one step only"}], "text", [{"empty_layer": True}], [1, 2]]
)
def test_history_that_does_not_fit_is_one_step_a_layer(store: Store, history: object) -> None:
    """It may be missing or wrong (clients.md rule 26)."""
    stock(store, image_of_words("one", ["base", "top"], **({"history": history} if history is not None else {})), "a:b")
    steps = store.history(reference_to("a:b")).steps
    assert [(step.created_by, step.layer is not None) for step in steps] == [("", True), ("", True)]


def test_a_new_name_is_a_name_like_any_other(store: Store) -> None:
    """Also in another repository of another registry; what had the name before is kept under its digest."""
    one, two = stock(store, image_of_words("one"), "app:one"), stock(store, image_of_words("two"), "app:two")
    store.tag(reference_to("app:one"), Reference.parse("example.com/other/app:new"))
    store.tag(reference_to("app:one"), reference_to("app:two"))
    assert {image.name: image.descriptor.digest for image in store.images()} == {
        f"{HOST}/app:one": one.digest,
        f"{HOST}/app:two": one.digest,
        "example.com/other/app:new": one.digest,
        f"{HOST}/app@{two.digest}": two.digest,
    }


def test_only_a_tag_is_a_new_name(store: Store) -> None:
    """And only an image of the store gets one."""
    content = stock(store, image_of_words("one"), "app:one")
    with pytest.raises(ImageError, match="a new name is a tag"):
        store.tag(reference_to("app:one"), reference_to(f"app@{content.digest}"))
    with pytest.raises(ImageError, match="not in the store"):
        store.tag(reference_to("app:none"), reference_to("app:two"))


def test_a_removed_name_takes_along_what_only_it_needed(store: Store) -> None:
    """Blobs and trees; what another image shares stays."""
    stock(store, image_of_words("one", ["base", "top"]), "app:one")
    stock(store, image_of_words("two", ["base"]), "app:two")
    removed = store.remove([reference_to("app:one")])
    assert removed.names == (f"{HOST}/app:one",)
    assert (removed.blobs, removed.trees) == (3, 1)
    assert removed.size > 10_000
    assert names_in(store) == ["app:two"]
    assert not _has(store, "top")
    assert _has(store, "base")
    assert os.listdir(os.path.join(store.root, "staging")) == []


def test_one_of_two_names_takes_nothing_along(store: Store) -> None:
    """The image still has a name."""
    stock(store, image_of_words("one"), "app:one")
    store.tag(reference_to("app:one"), reference_to("app:two"))
    assert store.remove([reference_to("app:one")]).blobs == 0
    assert _has(store, "base")


@pytest.mark.parametrize("length", [8 + 7, 12 + 7, 64 + 7])
def test_a_digest_removes_every_name(store: Store, length: int) -> None:
    """Its beginning is enough."""
    content = stock(store, image_of_words("one"), "app:one")
    store.tag(reference_to("app:one"), reference_to("else:two"))
    assert len(store.remove([str(content.digest)[:length]]).names) == 2
    assert not _has(store, "base")


def test_a_digest_of_a_repository_removes_its_names_there(store: Store) -> None:
    """Not those of other repositories."""
    content = stock(store, image_of_words("one"), "app:one")
    store.tag(reference_to("app:one"), reference_to("else:two"))
    store.remove([reference_to(f"app@{content.digest}")])
    assert names_in(store) == ["else:two"]


@pytest.mark.parametrize("target", [reference_to("app:none"), "sha256:" + "0" * 12, "sha256:012", "nothing"])
def test_what_is_not_there_cannot_be_removed(store: Store, target: Reference | str) -> None:
    """And nothing else goes with it."""
    stock(store, image_of_words("one"), "app:one")
    with pytest.raises(ImageError):
        store.remove([reference_to("app:one"), target])
    assert names_in(store) == ["app:one"]


def test_content_in_use_is_left_to_prune(store: Store) -> None:
    """The name is gone at once."""
    stock(store, image_of_words("one"), "app:one")
    with store.lease():
        assert store.remove([reference_to("app:one")]).is_deferred
        assert names_in(store) == []
        assert _has(store, "base")
    assert store.prune().blobs == 3
    assert not _has(store, "base")


def test_prune_waits_for_those_who_use_the_store(store: Store) -> None:
    """And gives up without a change."""
    stock(store, image_of_words("one"), "app:one", age=1000)
    with store.lease(), pytest.raises(StoreInUse):
        store.prune(older_than=10, wait=0.05)
    assert names_in(store) == ["app:one"]


def test_prune_takes_what_no_name_leads_to(store: Store) -> None:
    """Blobs, trees, staging of the dead, locks; named images however old stay."""
    stock(store, image_of_words("one"), "app:one", age=1e9)
    store.files.write_blob(b"nobody's")
    os.makedirs(store.tree_path(diff_id("nobody's")))
    Path(f"{store.tree_path(diff_id('nobody'))}.lock").touch()
    os.makedirs(os.path.join(store.root, "staging", "0123456789abcdef", "dead"))
    removed = store.prune()
    assert (removed.names, removed.blobs, removed.trees) == ((), 1, 1)
    assert _has(store, "base")
    assert os.listdir(os.path.join(store.root, "staging")) == []
    assert len(os.listdir(os.path.join(store.root, "unpacked"))) == 1


def test_prune_takes_images_by_age(store: Store) -> None:
    """Of their last use."""
    stock(store, image_of_words("one", ["base", "top"]), "app:old", age=1000)
    stock(store, image_of_words("two", ["base"]), "app:new", age=10)
    assert store.prune(older_than=500).names == (f"{HOST}/app:old",)
    assert not _has(store, "top")
    assert _has(store, "base")


def test_prune_takes_images_until_the_store_is_small(store: Store) -> None:
    """Least recently used first, each with all its names."""
    stock(store, image_of_words("one", ["base"]), "app:second", age=20)
    stock(store, image_of_words("two", ["top"]), "app:first", age=30)
    stock(store, image_of_words("three", ["other"]), "app:last", age=10)
    os.utime(store.files.blob_path(store.find(reference_to("app:first")).digest), (time.time() - 30,) * 2)
    removed = store.prune(max_size=60_000)
    assert removed.names == (f"{HOST}/app:first",)
    assert store.prune(max_size=35_000).names == (f"{HOST}/app:second",)
    assert _has(store, "other")
    assert store.prune(max_size=0).names == (f"{HOST}/app:last",)
    assert list(Path(store.root, "blobs", "sha256").iterdir()) == []


@pytest.mark.parametrize(("age", "goes"), [(3600, False), (90_000, True)])
def test_prune_keeps_unfinished_content_for_a_day(store: Store, age: int, goes: bool) -> None:
    """Another run goes on with it."""
    part = Path(store.files.ingest_path(f"sha256-{'0' * 64}.part"))
    part.write_bytes(bytes(100_000))
    os.utime(part, (time.time() - age,) * 2)
    assert store.prune().ingests == goes
    assert part.exists() != goes


def test_unfinished_content_goes_before_images_and_with_age(store: Store) -> None:
    """When room is needed, or less patience is asked for."""
    for options in ({"max_size": 10}, {"older_than": 60}):
        part = Path(store.files.ingest_path(f"sha256-{'0' * 64}.part"))
        part.write_bytes(bytes(100_000))
        os.utime(part, (time.time() - 100,) * 2)
        assert store.prune(**options).ingests == 1


@pytest.mark.parametrize(
    ("left", "kept"),
    [((".map", ".lock"), ()), ((".part", ".map", ".lock"), (".part", ".map", ".lock")), ((".map",), ())],
)
def test_the_end_of_a_lease_tidies_what_a_kill_left(store: Store, left: Sequence[str], kept: Sequence[str]) -> None:
    """A map without its part tells nothing; a part is gone on with."""
    for ending in left:
        Path(store.files.ingest_path(f"sha256-{'0' * 64}{ending}")).touch()
    with store.lease():
        pass
    found = {path.suffix for path in Path(store.root, "ingests").iterdir()}
    assert found == set(kept)


def test_a_fetch_that_runs_is_not_tidied_away(store: Store) -> None:
    """It holds its lock."""
    descriptor = Descriptor(OCI_LAYER, diff_id("any"), 10)
    ingest = Ingest.claim(store.files, descriptor)
    assert ingest is not None
    ingest.write(0, memoryview(b"12345"))
    os.unlink(store.files.ingest_path(f"sha256-{descriptor.digest.hex}.part"))
    with store.lease():
        pass
    assert {path.suffix for path in Path(store.root, "ingests").iterdir()} == {".map", ".lock"}
    ingest.close()


def test_nothing_is_removed_from_a_damaged_store(store: Store) -> None:
    """A manifest that cannot be read hides what it needs."""
    content = stock(store, image_of_words("one"), "app:one")
    store.files.write_blob(b"nobody's")
    Path(store.files.blob_path(content.digest)).write_bytes(b"{}")
    for act in (store.prune, store.images, lambda: store.remove([reference_to("app:one")])):
        with pytest.raises(LayoutInvalid, match="damaged"):
            act()
    assert store.files.has_blob(Digest.of(b"nobody's"))


def test_prune_settles_what_was_unsynced(store: Store) -> None:
    """So that a store kept by a CI cache is trusted on the next machine."""
    store.files.unsynced.note(blobs=[diff_id("any")])
    store.prune()
    assert not Unsynced(store.root, boot="after").is_doubtful_blob(diff_id("any"))


def test_a_lease_and_a_snapshot_keep_an_image_that_is_removed(store: Store) -> None:
    """A push that has begun is not disturbed: names go at once, content later."""
    content = stock(store, image_of_words("one", ["base", "top"]), "app:one")
    with store.lease():
        snapshot = store.snapshot(HOST)
        assert store.remove([reference_to("app:one")]).is_deferred
        found = asyncio.run(snapshot.read_manifest(RepositoryName("app"), Tag("one")))
        assert found.digest == content.digest
        assert all(store.files.has_blob(part.digest) for part in content.blobs)
        with pytest.raises(LayoutInvalid):
            snapshot.catalog.delete_tag(RepositoryName("app"), Tag("one"))
    assert names_in(store) == []
