"""A pull brings an image into the store and unpacks it while it arrives; nothing is seen before it holds."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moorage.puller import unsynced
from moorage.puller.errors import BrokenLayer, NoMatchingPlatform, TargetExists, UnsafeLayer
from moorage.puller.events import BlobDone, BlobStarted, Event, LayerUnpacked, Resumed
from moorage.puller.pull import pull_image
from moorage.puller.remote import RemoteRegistry
from moorage.puller.results import PullResult
from moorage.puller.staging import sync_directory
from moorage.puller.store import Store
from moorage.puller.unsynced import Unsynced
from moorage.registry.oci import (
    BlobUnknown,
    Digest,
    DigestInvalid,
    Manifest,
    ManifestUnknown,
    Platform,
    Reference,
    Tag,
)
from moorage.registry.testing import Corrupt, LoopbackRegistry, Slow, Stall

from tests.content import artifact, index, platforms, repository
from tests.layers import archive, directory, file, seen, symlink
from tests.pulled import image_of, push_image

_BASE = {"etc/motd": "hello", "usr/bin/tool": "x" * 1000}
_TOP = {"etc/.wh.motd": "", "srv/data": "y" * 1000}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(str(tmp_path / "store"))


@pytest.fixture(autouse=True)
def leaves_no_thread() -> Iterator[None]:
    """Whatever a pull came to, its threads end with it."""
    yield
    deadline = time.monotonic() + 60
    while working := [t.name for t in threading.enumerate() if t.name in ("moorage-inflate", "moorage-hash")]:
        assert time.monotonic() < deadline, working
        time.sleep(0.01)


async def _pull(registry: LoopbackRegistry, store: Store, name: str = "team/app:v1", **options: Any) -> PullResult:
    async with RemoteRegistry.connect(registry.host) as remote:
        return await pull_image(remote, Reference.parse(f"{registry.host}/{name}"), store, **options)


def _names(store: Store) -> list[str]:
    return [image.name for image in store.images()]


def _trees(store: Store) -> list[str]:
    return os.listdir(os.path.join(store.root, "unpacked")) if os.path.exists(f"{store.root}/unpacked") else []


def _is_clean(store: Store) -> bool:
    """Whether nothing is being made any more."""
    return os.listdir(os.path.join(store.root, "staging")) == []


def _links(root: Path) -> set[int]:
    """How many names the files have."""
    return {path.stat().st_nlink for path in root.glob("**/*") if path.is_file()}


def _damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(500_000)
        file.write(bytes(100_000))


def _leave_half_a_tree(store: Store) -> None:
    left = Path(store.root, "staging", "0123456789abcdef", "tree")
    left.mkdir(parents=True)
    (left / "half").write_text("half")


def _requests(registry: LoopbackRegistry) -> list[str]:
    return [f"{request.method} {request.path.rsplit('/', 2)[1]}" for request in registry.requests]


async def test_a_pull_brings_blobs_trees_and_a_name(registry: LoopbackRegistry, store: Store) -> None:
    """And says what it did, layer by layer."""
    digest = registry.add_image("team/app:v1", _BASE, _TOP)
    events: list[Event] = []
    result = await _pull(registry, store, on_event=events.append)
    assert (str(result.digest), str(result.platform)) == (digest, "linux/amd64")
    assert _names(store) == [f"{registry.host}/team/app:v1"]
    assert [layer.source for layer in result.layers] == ["full", "full"]
    assert [set(seen(Path(path))) for path in result.paths] == [
        {"etc", "etc/motd", "usr", "usr/bin", "usr/bin/tool", ".wh..wh.moorage"},
        {"etc", "etc/.wh.motd", "srv", "srv/data", ".wh..wh.moorage"},
    ]
    assert result.fetched == sum(event.descriptor.size for event in events if isinstance(event, BlobDone))
    assert sum(isinstance(event, LayerUnpacked) for event in events) == 2
    assert min(layer.seconds for layer in result.layers) > 0
    assert result.times.inflate > 0
    assert result.times.disk > 0


async def test_an_image_that_is_there_costs_one_head(registry: LoopbackRegistry, store: Store) -> None:
    """No body, and nothing is unpacked again."""
    registry.add_image("team/app:v1", _BASE)
    first = await _pull(registry, store)
    made = os.stat(first.paths[0]).st_ctime_ns
    registry.forget_requests()
    again = await _pull(registry, store)
    assert _requests(registry) == ["HEAD manifests"]
    assert [layer.source for layer in again.layers] == ["cached"]
    assert (again.paths, os.stat(again.paths[0]).st_ctime_ns) == (first.paths, made)


@pytest.mark.parametrize("is_known", [False, True], ids=["fetched now", "in the store"])
async def test_an_image_alone_for_another_platform_is_refused(
    registry: LoopbackRegistry, store: Store, tmp_path: Path, is_known: bool
) -> None:
    """Where a platform is named; nothing is fetched but the config, and nothing unpacked."""
    registry.add_image("team/app:v1", _BASE)
    if is_known:
        await _pull(registry, store, trees=False)
    registry.forget_requests()
    with pytest.raises(NoMatchingPlatform, match=r"no image for linux/arm64 .*only, for linux/amd64"):
        await _pull(registry, store, platform=Platform("linux", "arm64"), target=str(tmp_path / "out"))
    assert _requests(registry) == (["HEAD manifests"] if is_known else ["GET manifests", "GET blobs"])
    assert not (tmp_path / "out").exists()
    result = await _pull(registry, store, platform=Platform("linux", "amd64", "v3"))
    assert str(result.platform) == "linux/amd64"


async def test_a_tag_of_an_index_costs_one_head_too(registry: LoopbackRegistry, store: Store) -> None:
    """The store remembers which index the image was chosen from, and for which platform."""
    one, other = image_of(archive(file("one"))), image_of(archive(file("other")))
    await push_image(registry, index([one, other]))
    first, second = platforms(2)
    for platform, content, requests in (
        (first, one, ["GET manifests", "GET manifests", "GET blobs", "GET blobs"]),
        (first, one, ["HEAD manifests"]),
        (second, other, ["GET manifests", "GET manifests", "GET blobs", "GET blobs"]),
    ):
        registry.forget_requests()
        result = await _pull(registry, store, platform=platform)
        assert (result.digest, _requests(registry)) == (content.digest, requests)


async def test_a_digest_that_is_there_costs_nothing(registry: LoopbackRegistry, store: Store) -> None:
    """What it names cannot have changed."""
    digest = registry.add_image("team/app:v1", _BASE)
    for name in (f"team/app@{digest}", f"team/app:v1@{digest}"):
        await _pull(registry, store, name)
    registry.forget_requests()
    for name in (f"team/app@{digest}", f"team/app:v1@{digest}"):
        assert str((await _pull(registry, store, name)).digest) == digest
    assert _requests(registry) == []


async def test_the_digest_of_an_index_that_is_there_costs_nothing_either(
    registry: LoopbackRegistry, store: Store
) -> None:
    """Pipelines pin images by it; what was chosen from it is remembered, for its platform alone."""
    one, other = image_of(archive(file("one"))), image_of(archive(file("other")))
    both = index([one, other])
    await push_image(registry, both)
    first, second = platforms(2)
    await _pull(registry, store, f"team/app@{both.digest}", platform=first)
    registry.forget_requests()
    for policy in ("always", "never"):
        result = await _pull(registry, store, f"team/app@{both.digest}", platform=first, policy=policy)
        assert (result.digest, _requests(registry)) == (one.digest, [])
    with pytest.raises(ManifestUnknown):
        await _pull(registry, store, f"team/app@{both.digest}", platform=second, policy="never")


async def test_a_tag_that_moved_brings_only_what_is_new(registry: LoopbackRegistry, store: Store) -> None:
    """Layers are shared between images, their trees too."""
    registry.add_image("team/app:v1", _BASE)
    old = await _pull(registry, store)
    registry.add_image("team/app:v1", _BASE, _TOP)
    registry.forget_requests()
    new = await _pull(registry, store)
    assert _requests(registry) == ["HEAD manifests", "GET manifests", "GET blobs", "GET blobs"]
    assert [layer.source for layer in new.layers] == ["cached", "full"]
    assert new.paths[0] == old.paths[0]


async def test_policies_say_when_the_registry_is_asked(registry: LoopbackRegistry, store: Store) -> None:
    """``missing``: not for what the store has; ``never``: not at all."""
    registry.add_image("team/app:v1", _BASE)
    with pytest.raises(ManifestUnknown):
        await _pull(registry, store, policy="never")
    assert _requests(registry) == []
    await _pull(registry, store, policy="missing")
    registry.forget_requests()
    for policy in ("missing", "never"):
        assert (await _pull(registry, store, policy=policy)).layers[0].source == "cached"
    assert _requests(registry) == []


async def test_never_means_never_where_a_blob_is_gone(registry: LoopbackRegistry, store: Store) -> None:
    """``missing`` fetches it again, and nothing else."""
    registry.add_image("team/app:v1", _BASE, _TOP)
    result = await _pull(registry, store)
    os.unlink(store.files.blob_path(result.layers[1].descriptor.digest))
    registry.forget_requests()
    with pytest.raises(BlobUnknown):
        await _pull(registry, store, policy="never")
    assert _requests(registry) == []
    again = await _pull(registry, store, policy="missing")
    assert ([layer.source for layer in again.layers], _requests(registry)) == (["cached", "full"], ["GET blobs"])


async def test_a_merged_tree_is_its_owners_own(registry: LoopbackRegistry, store: Store, tmp_path: Path) -> None:
    """Layers in order, whiteouts applied, and no inode that the store has, so that changing it hurts nobody."""
    registry.add_image("team/app:v1", _BASE, _TOP)
    result = await _pull(registry, store, target=str(tmp_path / "root"))
    assert set(seen(tmp_path / "root")) == {"etc", "usr", "usr/bin", "usr/bin/tool", "srv", "srv/data"}
    assert (result.path, result.paths) == (str(tmp_path / "root"), [str(tmp_path / "root")])
    assert _links(tmp_path / "root") == {1}
    assert _trees(store) == []


async def test_a_target_with_something_in_it_is_refused_at_once(
    registry: LoopbackRegistry, store: Store, tmp_path: Path
) -> None:
    """Before anything is fetched."""
    registry.add_image("team/app:v1", _BASE)
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(TargetExists):
        await _pull(registry, store, target=str(tmp_path))
    assert "GET blobs" not in _requests(registry)


async def test_without_trees_blobs_are_all(registry: LoopbackRegistry, store: Store) -> None:
    """And unpacking later needs no registry."""
    registry.add_image("team/app:v1", _BASE)
    assert (await _pull(registry, store, trees=False)).paths == []
    assert _trees(store) == []
    registry.forget_requests()
    assert len((await _pull(registry, store, policy="never")).paths) == 1
    assert _requests(registry) == []


async def test_an_artifact_is_kept_as_it_is(registry: LoopbackRegistry, store: Store) -> None:
    """Its layers are no archives of files."""
    await push_image(registry, artifact(layers=2))
    result = await _pull(registry, store)
    assert (result.platform, result.paths, len(result.layers)) == (None, [], 2)


@pytest.mark.parametrize("at", [4, 300], ids=["where the archive stays right", "in the archive"])
async def test_wrong_bytes_leave_nothing(registry: LoopbackRegistry, store: Store, at: int) -> None:
    """Neither blob nor tree nor name. Byte 4 is the time in gzip's header: the diffID holds, the digest does not."""
    registry.add_image("team/app:v1", {"data": os.urandom(5000)})
    manifest = (await _manifest(registry)).document
    registry.inject(Corrupt(at=at), path=f"*/blobs/{manifest.blobs[1].digest}", times=None)
    with pytest.raises((DigestInvalid, BrokenLayer)):
        await _pull(registry, store)
    assert not store.files.has_blob(manifest.blobs[1].digest)
    assert _trees(store) == []
    assert (_names(store), _is_clean(store)) == ([], True)
    registry.heal()
    assert len((await _pull(registry, store)).paths) == 1


async def test_a_config_that_names_other_layers_is_refused(registry: LoopbackRegistry, store: Store) -> None:
    """The archive does not have the diffID; nothing is to be seen of the image."""
    await push_image(registry, image_of(archive(file("x")), diff_ids=(Digest.of(b"another"),)))
    with pytest.raises(BrokenLayer, match="not the layer"):
        await _pull(registry, store)
    assert _trees(store) == []
    assert (_names(store), _is_clean(store)) == ([], True)


async def test_a_refused_layer_stops_the_others_at_once(registry: LoopbackRegistry, store: Store) -> None:
    """The second layer would take for ever; what has arrived of it stays for the next pull."""
    big = archive(file("big", os.urandom(300_000)))
    content = image_of(archive(file("../out")), big)
    await push_image(registry, content)
    slow = content.blobs[2].digest
    stalled = registry.inject(Stall(after=100_000), path=f"*/blobs/{slow}")
    began = time.monotonic()
    with pytest.raises(UnsafeLayer):
        await _pull(registry, store)
    assert time.monotonic() - began < 20  # after 30 s the stall itself would have ended it
    assert (_names(store), _is_clean(store)) == ([], True)
    assert stalled.hits <= 1


async def test_a_cancelled_pull_cleans_up_and_goes_on_next_time(registry: LoopbackRegistry, store: Store) -> None:
    """Staging is removed, what has arrived is kept; the layer was being unpacked while it arrived."""
    content = image_of(archive(file("first", b"f" * 1_000_000), file("rest", os.urandom(2_000_000))))
    await push_image(registry, content)
    layer = content.blobs[1].descriptor
    registry.inject(Stall(after=1_200_000), path=f"*/blobs/{layer.digest}")
    pull = asyncio.create_task(_pull(registry, store))
    staging = Path(store.root, "staging")
    await _until(lambda: any(path.stat().st_size == 1_000_000 for path in staging.glob("**/first")))
    pull.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await pull
    assert time.monotonic() - began < 20  # after 30 s the stall itself would have ended it
    assert (_names(store), _is_clean(store)) == ([], True)
    registry.heal()
    events: list[Event] = []
    result = await _pull(registry, store, on_event=events.append)
    assert result.layers[0].source == "resumed"
    assert [event.offset > 0 for event in events if isinstance(event, Resumed)] == [True]
    assert {"first", "rest"} <= seen(Path(result.paths[0])).keys()


async def test_what_an_earlier_run_left_may_be_damaged(registry: LoopbackRegistry, store: Store) -> None:
    """A power cut keeps a file's length and loses its bytes: they are fetched again, and unpacked again."""
    content = image_of(archive(file("data", os.urandom(2_000_000))))
    await push_image(registry, content)
    layer = content.blobs[1].descriptor
    registry.inject(Stall(after=1_200_000), path=f"*/blobs/{layer.digest}")
    pull = asyncio.create_task(_pull(registry, store))
    part = Path(store.root, "ingests", f"sha256-{layer.digest.hex}.part")
    await _until(lambda: part.exists() and part.stat().st_size > 1_000_000)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    _damage(part)
    registry.heal()
    result = await _pull(registry, store)
    assert (Path(result.paths[0]) / "data").stat().st_size == 2_000_000
    assert _is_clean(store)


async def test_two_pulls_share_download_and_tree(registry: LoopbackRegistry, store: Store) -> None:
    """Each blob is fetched once, each layer unpacked once."""
    registry.add_image("team/app:v1", {"data": os.urandom(100_000)})
    registry.inject(Slow(delay=0.2, rate=None), path="*/blobs/*", times=None)
    events: list[Event] = []
    results = await asyncio.gather(*(_pull(registry, store, on_event=events.append) for _ in range(3)))
    assert sorted(_requests(registry)).count("GET blobs") == 2
    assert sum(isinstance(event, LayerUnpacked) for event in events) == 1
    assert len({tuple(result.paths) for result in results}) == 1


async def test_a_tree_from_before_a_reboot_is_made_anew(registry: LoopbackRegistry, store: Store) -> None:
    """It was never brought to the disk, so a power cut may have torn it; nothing is fetched for that."""
    registry.add_image("team/app:v1", _BASE)
    tree = Path((await _pull(registry, store)).paths[0])
    (tree / "usr/bin/tool").write_text("torn")
    registry.forget_requests()
    store.files.unsynced = Unsynced(store.root, boot="the next one")
    await _pull(registry, store)
    assert (tree / "usr/bin/tool").read_text() == _BASE["usr/bin/tool"]
    assert _requests(registry) == ["HEAD manifests"]


async def test_unpacking_does_not_wait_for_notes(
    registry: LoopbackRegistry, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may take a second to take a note while a layer is written; only what appears waits for it."""
    registry.add_image("team/app:v1", _BASE)
    waited, staging = list[bool](), os.path.join(store.root, "staging")

    def sync_slowly(path: str) -> None:
        if any(name.startswith("tree-") for name in os.listdir(path)):
            deadline = time.monotonic() + 60
            # Not rglob: it fails where a directory is renamed under it.
            while not any("tool" in names for _, _, names in os.walk(staging)) and time.monotonic() < deadline:
                time.sleep(0.01)
            waited.append(time.monotonic() < deadline)
        sync_directory(path)

    monkeypatch.setattr(unsynced, "sync_directory", sync_slowly)
    await _pull(registry, store)
    assert waited == [True]


async def test_the_manifest_is_on_the_disk_before_the_first_blob(registry: LoopbackRegistry, store: Store) -> None:
    """Later it would wait until much else is written. No name leads to it before all is there."""
    digest = Digest.parse(registry.add_image("team/app:v1", _BASE))
    seen_then: list[tuple[bool, int]] = []

    def look(event: Event) -> None:
        if isinstance(event, BlobStarted):
            seen_then.append((store.files.has_blob(digest), len(store.files.read_index())))

    await _pull(registry, store, on_event=look)
    assert set(seen_then) == {(True, 0)}


async def test_equal_layers_are_one(registry: LoopbackRegistry, store: Store) -> None:
    """Some builders write an empty layer many times."""
    raw = archive(directory("d"), symlink("d/l", "x"))
    await push_image(registry, image_of(raw, archive(file("x")), raw))
    result = await _pull(registry, store)
    assert (len(result.layers), len(set(result.paths))) == (3, 2)
    assert _requests(registry).count("GET blobs") == 3


async def test_the_next_pull_removes_what_a_killed_one_left(registry: LoopbackRegistry, store: Store) -> None:
    """Staging that nobody holds."""
    _leave_half_a_tree(store)
    registry.add_image("team/app:v1", _BASE)
    await _pull(registry, store)
    assert _is_clean(store)


async def _manifest(registry: LoopbackRegistry) -> Manifest:
    async with RemoteRegistry.connect(registry.host) as remote:
        return await remote.read_manifest(repository(), Tag("v1"))


async def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
