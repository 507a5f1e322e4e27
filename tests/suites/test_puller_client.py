"""The client as a library, as programs use it: with and without asyncio, in threads, where a loop runs."""

from __future__ import annotations

import asyncio
import random
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from moorage.puller import (
    AsyncClient,
    BadReference,
    BrokenLayer,
    Client,
    DeadlineExceeded,
    Denied,
    DigestMismatch,
    Event,
    FixedKeychain,
    HostConfig,
    ImageError,
    MoorageError,
    NoMatchingPlatform,
    NotFound,
    Platform,
    RateLimited,
    Reference,
    RetryPolicy,
    Tag,
    TargetExists,
    Unauthorized,
    Unreachable,
)
from moorage.puller.events import BlobDone, Finished
from moorage.puller.fetch.ingest import Ingest
from moorage.puller.layout import ImageLayout
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.show.plan import plan_lines
from moorage.registry.oci import Descriptor, Manifest
from moorage.registry.oci.media_types import OCI_INDEX
from moorage.registry.testing import Corrupt, Drop, IgnoreRange, LoopbackRegistry, Refuse, Slow

from tests.content import json_bytes, repository

NAME = "team/app:v1"
IMPATIENT = RetryPolicy(attempts=2, first_delay=0.01, longest_delay=0.1)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A client with a store of its own that knows nothing of this machine's user."""
    with Client(tmp_path / "store", keychain=FixedKeychain(None), hosts=HostConfig.empty(), retry=IMPATIENT) as client:
        yield client


@pytest.fixture
def image(registry: LoopbackRegistry) -> str:
    """The reference of an image with two layers."""
    registry.add_image(
        NAME,
        {"etc/motd": "hello", "bin/tool": "#!/bin/sh\n"},
        {"etc/.wh.motd": "", "etc/issue": "Moorage"},
        config={"config": {"Env": ["A=b"]}, "history": [{"created_by": "COPY"}, {"created_by": "RUN"}]},
    )
    return f"{registry.host}/{NAME}"


def test_three_lines_do(image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pull and unpack, by default into the user's store."""
    monkeypatch.setenv("MOORAGE_STORE", str(tmp_path / "default"))
    with Client() as c:
        result = c.pull(image, unpack=tmp_path / "dir")
    assert sorted(path.name for path in (tmp_path / "dir" / "etc").iterdir()) == ["issue"]
    assert result.path == str(tmp_path / "dir")
    assert (tmp_path / "default" / "index.json").exists()


def test_a_pull_says_what_it_did(client: Client, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By layer, in bytes and seconds; the second one fetches nothing. Nothing is printed."""
    first, second = client.pull(image), client.pull(image)
    assert [layer.source for layer in first.layers] == ["full", "full"]
    assert first.fetched >= sum(layer.descriptor.size for layer in first.layers)
    assert [Path(path).is_dir() for path in first.paths] == [True, True]
    assert first.seconds > 0
    assert [layer.source for layer in second.layers] == ["cached", "cached"]
    assert (second.fetched, second.paths, second.digest) == (0, first.paths, first.digest)
    assert first.platform == Platform("linux", "amd64")
    assert capsys.readouterr() == ("", "")


def test_resolving_costs_one_head(client: Client, image: str, registry: LoopbackRegistry) -> None:
    """And nothing is fetched."""
    registry.forget_requests()
    named = client.resolve(image)
    assert [request.method for request in registry.requests] == ["HEAD"]
    assert client.resolve(Reference.parse(image), platform="linux/amd64") == named
    assert client.pull(image).descriptor == named


def test_an_image_is_looked_into_without_a_pull(client: Client, image: str) -> None:
    """Config, history, the entries and the bytes of a layer."""
    found = client.image(image)
    assert found.config["config"] == {"Env": ["A=b"]}
    assert [step.created_by for step in found.history] == ["COPY", "RUN"]
    first, second = found.layers
    assert [entry.name for entry in second.files()] == [b"etc/.wh.motd", b"etc/issue"]
    with first.open() as file:
        assert file.read(2) == b"\x1f\x8b"
        assert len(file.read()) == first.descriptor.size - 2
    with first.uncompressed() as file, tarfile.open(fileobj=file) as archive:
        motd = archive.extractfile("etc/motd")
        assert motd is not None
        assert motd.read() == b"hello"
    assert found.manifest.digest == found.digest == client.resolve(image).digest
    assert not Path(client.store.root, "blobs", "sha256", first.descriptor.digest.hex).exists()


def test_push_copy_list_and_delete(client: Client, registry: LoopbackRegistry, tmp_path: Path) -> None:
    """The verbs, as methods."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_text("a")
    pushed = client.push(tmp_path / "files", f"{registry.host}/x/a:v1")
    copied = client.copy(f"{registry.host}/x/a:v1", f"{registry.host}/x/b:v2")
    assert pushed.descriptor == copied.descriptor
    assert {blob.action for blob in copied.blobs} == {"mounted"}
    assert client.tags(f"{registry.host}/x/b") == ["v2"]
    assert client.referrers(f"{registry.host}/x/b:v2") == []
    client.delete(f"{registry.host}/x/b:v2")
    assert client.tags(f"{registry.host}/x/b") == []
    assert client.pull(f"{registry.host}/x/a:v1").digest == pushed.descriptor.digest
    again = client.push(f"{registry.host}/x/a:v1", f"{registry.host}/x/c:v1")
    assert again.descriptor == pushed.descriptor


def test_plans_do_nothing(client: Client, image: str, registry: LoopbackRegistry, tmp_path: Path) -> None:
    """They only read, and foresee what a pull, a push and a copy do."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_text("a")
    registry.forget_requests()
    plan = client.plan_pull(image)
    assert [blob.action for blob in plan.blobs] == ["move"] * 3
    assert plan.moved == plan.size == client.pull(image).fetched
    assert client.plan_pull(image).moved == 0
    pushing = client.plan_push(tmp_path / "files", f"{registry.host}/x/a:v1")
    assert [str(tag) for tag in pushing.tags] == ["v1"]
    copying = client.plan_copy(image, f"{registry.host}/x/b:v1")
    assert {blob.action for blob in copying.blobs} == {"mount"}
    assert {request.method for request in registry.requests} == {"GET", "HEAD"}
    with pytest.raises(NotFound):
        client.tags(f"{registry.host}/x/a")
    assert client.plan_copy(image, f"docker-archive:{tmp_path / 'archive.tar'}").moved == plan.size
    assert client.plan_copy(image, f"oci:{tmp_path / 'layout'}:v1").moved == plan.size
    assert {path.name for path in tmp_path.iterdir()} == {"files", "store"}


def test_a_plan_makes_no_store(image: str, tmp_path: Path) -> None:
    """Where there is none everything would be fetched, and there is none afterwards either."""
    with Client(tmp_path / "new", keychain=FixedKeychain(None), hosts=HostConfig.empty()) as client:
        plan = client.plan_pull(image)
    assert plan.moved == plan.size > 0
    assert not (tmp_path / "new").exists()


def _leave_a_part(client: Client, reference: str) -> Descriptor:
    """Its biggest blob, of which the store now holds 100 bytes."""
    blob = max((planned.descriptor for planned in client.plan_pull(reference).blobs), key=lambda blob: blob.size)
    ingest = Ingest.claim(client.store.files, blob)
    assert ingest is not None
    ingest.write(0, memoryview(bytes(100)))
    ingest.close()
    return blob


def test_a_registry_without_ranges_is_known_to_the_next_pull(
    client: Client, image: str, registry: LoopbackRegistry
) -> None:
    """It is asked for the rest of a blob once; from then on a client asks it for whole ones."""
    other = f"{registry.host}/team/other:v1"
    registry.add_image("team/other:v1", {"etc/other": "x" * 1000})
    registry.inject(IgnoreRange(), path="*/blobs/*", times=None)
    for reference, has_range in ((image, True), (other, False)):
        blob = _leave_a_part(client, reference)
        registry.forget_requests()
        client.pull(reference)
        asked = [request for request in registry.requests if str(blob.digest) in request.path]
        assert ("range" in asked[0].headers) == has_range


def test_a_plan_does_not_count_what_is_held(client: Client, image: str) -> None:
    """What an earlier pull left of a blob is not fetched again, and the plan knows."""
    whole = client.plan_pull(image)
    blob = _leave_a_part(client, image)
    plan = client.plan_pull(image)
    assert plan.moved == whole.size - 100
    assert [planned.held for planned in plan.blobs if planned.descriptor == blob] == [100]
    assert any("all but 100 B" in line for line in plan_lines(plan, move="fetch"))


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        pytest.param("{host}/team/app:no", NotFound, id="no tag"),
        pytest.param("{host}/no/such:v1", NotFound, id="no repository"),
        pytest.param("127.0.0.1:1/x:v1", Unreachable, id="no registry"),
        pytest.param("{host}/UPPER:v1", BadReference, id="no name"),
    ],
)
def test_what_cannot_be_pulled(
    client: Client, image: str, registry: LoopbackRegistry, reference: str, error: type[MoorageError]
) -> None:
    """Says why by its class."""
    with pytest.raises(error):
        client.pull(reference.format(host=registry.host))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(Refuse(429, retry_after=0), RateLimited, id="too many requests"),
        pytest.param(Refuse(401), Unauthorized, id="not logged in"),
        pytest.param(Refuse(403), Denied, id="not allowed"),
        pytest.param(Corrupt(), DigestMismatch, id="wrong bytes"),
        pytest.param(Drop(3), Unreachable, id="cut off"),
    ],
)
def test_faults_have_classes(
    client: Client, image: str, registry: LoopbackRegistry, fault: Refuse, error: type[MoorageError]
) -> None:
    """When they stay; afterwards the same client is well."""
    registry.inject(fault, method="GET", path="*/blobs/*", times=None)
    with pytest.raises(error) as caught:
        client.pull(image)
    assert isinstance(caught.value, MoorageError)
    registry.heal()
    assert client.pull(image).paths


def test_a_rate_limit_tells_how_long_it_lasts(client: Client, image: str, registry: LoopbackRegistry) -> None:
    """In seconds."""
    registry.inject(Refuse(429, retry_after=3600), times=None)
    with pytest.raises(RateLimited) as caught:
        client.resolve(image)
    assert caught.value.retry_after == 3600


def test_what_the_image_or_the_disk_does_not_allow(client: Client, image: str, tmp_path: Path) -> None:
    """No such platform, no empty directory, no layers of a container."""
    with pytest.raises(BadReference):
        client.pull(image, platform="amd64")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(TargetExists):
        client.pull(image, unpack=tmp_path / "full")
    with pytest.raises(ImageError):
        client.push(tmp_path / "nothing", image)
    with pytest.raises(BadReference):
        client.delete(image.partition(":v1")[0])


def test_a_platform_that_an_index_lacks(client: Client, registry: LoopbackRegistry, image: str, tmp_path: Path) -> None:
    """Is named as such."""
    layout = f"oci:{tmp_path / 'layout'}:v1"
    client.copy(image, layout)
    index = _index_of(client, layout, tmp_path)
    with pytest.raises(NoMatchingPlatform):
        client.resolve(index, platform="windows/arm64")
    assert client.resolve(index, platform="linux/amd64") == client.resolve(image)
    assert client.image(index, index=True).document.manifests[0].digest == client.image(index).digest


def _index_of(client: Client, layout: str, tmp_path: Path) -> str:
    """A layout whose image ``i`` is an index of the image of ``layout``."""
    child = {**client.resolve(layout).to_json(), "platform": {"os": "linux", "architecture": "amd64"}}
    content = json_bytes({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]})
    view = ImageLayout.of_tags(LayoutFiles(str(tmp_path / "layout"), create=False), repository("layout"))
    asyncio.run(view.push_manifest(repository("layout"), Manifest.of(content, OCI_INDEX), tags=[Tag("i")]))
    return f"oci:{tmp_path / 'layout'}:i"


def test_a_deadline_ends_a_pull_and_the_next_goes_on(client: Client, registry: LoopbackRegistry) -> None:
    """What had arrived is not fetched again."""
    registry.add_image(NAME, {"random": random.Random(1).randbytes(400_000)})
    registry.inject(Slow(rate=200_000), method="GET", path="*/blobs/*", times=None)
    with pytest.raises(DeadlineExceeded):
        client.pull(f"{registry.host}/{NAME}", deadline=0.6)
    registry.heal()
    result = client.pull(f"{registry.host}/{NAME}")
    assert result.layers[0].source == "resumed"
    assert result.layers[0].fetched < result.layers[0].descriptor.size


def test_events_arrive_in_the_clients_thread(client: Client, image: str) -> None:
    """Which must not be kept waiting for itself."""
    seen: list[tuple[Event, str]] = []
    failures: list[BaseException] = []

    def on_event(event: Event) -> None:
        seen.append((event, threading.current_thread().name))
        try:
            client.tags(image)
        except RuntimeError as exc:
            failures.append(exc)

    client.pull(image, on_event=on_event)
    assert {thread for _, thread in seen} == {"moorage-client"}
    assert isinstance(seen[-1][0], Finished)
    assert sum(isinstance(event, BlobDone) for event, _ in seen) == 3
    assert len(failures) == len(seen)


async def test_it_works_where_a_loop_runs(client: Client, image: str) -> None:
    """As in Jupyter, where every cell runs in one."""
    assert client.pull(image).paths


def test_several_threads_share_a_client(client: Client, image: str, registry: LoopbackRegistry) -> None:
    """And one download."""
    registry.inject(Slow(delay=0.2), path="*/blobs/*", times=None)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: client.pull(image), range(4)))
    assert len({result.digest for result in results}) == 1
    blobs = [request.path for request in registry.requests if request.method == "GET" and "/blobs/" in request.path]
    assert len(blobs) == len(set(blobs)) == 3


async def test_the_same_with_asyncio(image: str, registry: LoopbackRegistry, tmp_path: Path) -> None:
    """Methods may run side by side."""
    async with AsyncClient(tmp_path / "store", keychain=FixedKeychain(None), hosts=HostConfig.empty()) as client:
        first, second, tags = await asyncio.gather(
            client.pull(image), client.resolve(image), client.tags(f"{registry.host}/team/app")
        )
        assert (first.digest, tags) == (second.digest, ["v1"])
        found = await client.image(image)
        async with found.layers[0].open() as file:
            assert len(file.read()) == found.layers[0].descriptor.size
        assert len(await found.layers[0].files()) == 2
        with pytest.raises(NotFound):
            await client.pull(f"{registry.host}/team/app:none")


def test_a_damaged_layer_shows_nothing(client: Client, image: str, registry: LoopbackRegistry) -> None:
    """Neither its blob nor its archive."""
    layer = client.image(image).layers[0]
    registry.inject(Corrupt(at=20), path="*/blobs/*", times=None)
    with pytest.raises(DigestMismatch), layer.open():
        pytest.fail("the file was given out")
    with pytest.raises((DigestMismatch, BrokenLayer)):
        layer.files()


def test_a_closed_client_says_so(client: Client, image: str) -> None:
    """Closing twice is well."""
    client.pull(image)
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.tags(image)


def test_closing_ends_what_runs_in_other_threads(client: Client, image: str, registry: LoopbackRegistry) -> None:
    """It fails there, and says why."""
    registry.inject(Slow(delay=20), times=None)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.pull, image)
        while not registry.requests:
            time.sleep(0.01)
        client.close()
        with pytest.raises(RuntimeError, match="closed meanwhile"):
            running.result(10)


@pytest.mark.parametrize("wrong", [{"policy": "Always"}, {"owners": "sqash"}])
def test_a_misspelt_word_is_no_default(
    registry: LoopbackRegistry, client: Client, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    """Not even where types are not checked."""
    registry.add_image(NAME, {"motd": "hello"})
    with pytest.raises(ValueError, match=next(iter(wrong.values()))):
        client.pull(f"{registry.host}/{NAME}", unpack=tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
