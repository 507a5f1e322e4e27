"""Mirrors spare the registry what they can, and nothing they do keeps an image from arriving whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from moorage.puller import AsyncClient, Plan
from moorage.puller.credentials import Credentials, FixedKeychain
from moorage.puller.events import Event, Warned
from moorage.puller.hosts import HostConfig
from moorage.puller.messages import RetryPolicy
from moorage.puller.origins import Origin
from moorage.puller.results import PullResult
from moorage.puller.store import Store
from moorage.registry.oci import Digest, ManifestUnknown, RepositoryName, Tag
from moorage.registry.testing import Corrupt, Drop, Fault, LoopbackRegistry, Refuse

from tests.layers import archive, file
from tests.pulled import image_of, push_image
from tests.scripted import Reply, Seen, scripted

_LAYERS: tuple[dict[str, str | bytes], ...] = ({"etc/motd": "hi", "big": bytes(300_000)}, {"usr/bin/x": "y" * 5000})
_FAST = RetryPolicy(attempts=2, first_delay=0.001, longest_delay=0.01)


@dataclass
class _World:
    """A registry, two mirrors of it, and a client that is told of them."""

    home: LoopbackRegistry
    mirrors: list[LoopbackRegistry]
    folder: Path
    hosts: HostConfig
    said: list[Event]

    async def pull(self, name: str = "team/app:v1") -> PullResult:
        async with AsyncClient(
            Store(str(self.folder / "store")),
            keychain=FixedKeychain(None),
            hosts=self.hosts,
            retry=_FAST,
            on_event=self.said.append,
        ) as client:
            return await client.pull(f"{self.home.host}/{name}")

    async def plan(self) -> Plan:
        async with AsyncClient(self.folder / "planned", keychain=FixedKeychain(None), hosts=self.hosts) as client:
            return await client.plan_pull(f"{self.home.host}/team/app:v1")

    def fill(self, *registries: LoopbackRegistry) -> str:
        digests = {
            registry.add_image("hub/team/app:v1" if registry is self.mirrors[1] else "team/app:v1", *_LAYERS)
            for registry in registries
        }
        (digest,) = digests
        return digest

    @property
    def warnings(self) -> str:
        return "\n".join(event.message for event in self.said if isinstance(event, Warned))


def _gets(registry: LoopbackRegistry, part: str) -> int:
    return sum(part in request.path and request.method == "GET" for request in registry.requests)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[_World]:
    with ExitStack() as stack:
        home, one, two = (stack.enter_context(LoopbackRegistry()) for _ in range(3))
        (tmp_path / "hosts.toml").write_text(f'["{home.host}"]\nmirrors = ["{one.host}", "{two.host}/hub"]\n')
        hosts = HostConfig.load({"MOORAGE_CONFIG_DIR": str(tmp_path)})
        yield _World(home, [one, two], tmp_path, hosts, [])


async def test_a_mirror_that_has_all_is_all_that_is_asked(world: _World) -> None:
    """Tag, manifest and blobs; the image is kept under the registry's name."""
    digest = world.fill(world.home, *world.mirrors)
    result = await world.pull()
    assert str(result.digest) == digest
    assert result.reference.registry == world.home.host
    assert world.home.requests == world.mirrors[1].requests == []
    assert world.warnings == ""


async def test_a_plan_asks_as_the_pull_will(world: _World) -> None:
    """The mirrors first: they may have what the registry itself no longer has, or be all that can be reached."""
    digest = world.fill(world.mirrors[0])
    plan = await world.plan()
    assert (str(plan.descriptor.digest), len(plan.blobs)) == (digest, 3)
    assert list(world.home.requests) == []


async def test_what_a_mirror_lacks_the_next_one_gives(world: _World) -> None:
    """Below its namespace; and the registry itself has the last word."""
    world.fill(world.home, world.mirrors[1])
    await world.pull()
    assert _gets(world.mirrors[1], "/v2/hub/team/app/blobs/") == 3
    assert world.home.requests == []
    world.home.add_image("team/only:v1", {"a": "b"})
    await world.pull("team/only:v1")
    assert _gets(world.home, "/blobs/") == 2
    with pytest.raises(ManifestUnknown):
        await world.pull("team/none:v1")
    assert world.warnings == ""


async def test_what_was_unpacked_of_a_mirrors_wrong_bytes_is_unpacked_again(world: _World) -> None:
    """The layer is refused long before all of it is here; then the registry sends the right one."""
    raw = archive(file("big", bytes(16_000_000)))
    for registry in (world.home, world.mirrors[0]):
        await push_image(registry, image_of(raw, compressed=(raw,)))
    world.mirrors[0].inject(Corrupt(at=100), path=f"*/blobs/{Digest.of(raw)}", times=None)
    result = await world.pull()
    assert "sent wrong bytes" in world.warnings
    assert os.stat(f"{result.paths[0]}/big").st_size == 16_000_000


@pytest.mark.parametrize(
    "fault",
    [Refuse(500), Refuse(503), Refuse(429), Refuse(403), Drop(None), Drop(after=10), Corrupt(at=5), Corrupt(at=100)],
    ids=["500", "503", "429", "403", "no answer", "half an answer", "wrong bytes", "a broken archive"],
)
@pytest.mark.parametrize("path", ["*/blobs/*", "*/manifests/*"], ids=["blobs", "manifests"])
async def test_a_mirror_that_fails_is_left(world: _World, fault: Fault, path: str) -> None:
    """The image arrives from elsewhere, right to the last byte, and it is said why."""
    digest = world.fill(world.home, world.mirrors[0])
    world.mirrors[0].inject(fault, path=path, method="GET", times=None)
    result = await world.pull()
    assert str(result.digest) == digest
    assert _gets(world.home, path.strip("*")) > 0
    assert f"mirror {world.mirrors[0].host}: " in world.warnings


async def test_a_mirror_that_sends_too_much_is_left(world: _World, tmp_path: Path) -> None:
    """Without having said how much it would be."""
    digest = world.fill(world.home)

    def answer(seen: Seen) -> Reply:
        return Reply(200, bytes(100_000), {"content-length": ""}, 10) if "/blobs/" in seen.target else Reply(404)

    async with scripted(answer) as mirror:
        (tmp_path / "hosts.toml").write_text(f'["{world.home.host}"]\nmirrors = ["{mirror.host}"]\n')
        world.hosts = HostConfig.load({"MOORAGE_CONFIG_DIR": str(tmp_path)})
        assert str((await world.pull()).digest) == digest
        assert f"mirror {mirror.host}: " in world.warnings


async def test_a_mirror_that_is_gone_is_asked_once(world: _World) -> None:
    """Not for every blob."""
    world.fill(world.home)
    gone = world.mirrors[0]
    gone.inject(Drop(None), times=None)
    await world.pull()
    assert world.warnings.count(f"mirror {gone.host}") == 1


async def test_only_pulls_go_to_mirrors(world: _World) -> None:
    """Whoever writes, lists or asks what the registry has is answered by the registry."""
    world.fill(world.home, world.mirrors[0])
    async with AsyncClient(keychain=FixedKeychain(None), hosts=world.hosts, retry=_FAST) as client:
        await client.resolve(f"{world.home.host}/team/app:v1")
        await client.tags(f"{world.home.host}/team/app")
        assert world.mirrors[0].requests == []
        source = await client._connections.source(world.home.host)  # to see what a push would be told
        manifest = await source.read_manifest(RepositoryName("team/app"), Tag("v1"))
        blob = manifest.document.blobs[0]
        world.mirrors[0].forget_requests()
        await source.resolve_blob(RepositoryName("team/app"), blob.digest, for_push=True)
        assert world.mirrors[0].requests == []
        async with source.read_blob(RepositoryName("team/app"), blob.digest) as stream:
            assert sum([len(chunk) async for chunk in stream]) == blob.size
        assert _gets(world.mirrors[0], "/blobs/") == 1


async def test_a_login_goes_to_nobody_else(world: _World, tmp_path: Path) -> None:
    """The keychain is asked for the mirror's own, with its name for the repository; the registry never sees it."""
    asked: list[tuple[int, str]] = []
    alice = Credentials("alice", "s3cret")

    class Noting:
        async def find(self, origin: Origin, repository: str = "") -> Credentials:
            asked.append((origin.port, repository))
            return alice

    def answer(seen: Seen) -> Reply:
        is_alice = seen.headers.get("authorization") == alice.basic
        return Reply(404) if is_alice else Reply(401, headers={"www-authenticate": 'Basic realm="r"'})

    world.fill(world.home)
    async with scripted(answer) as mirror:
        (tmp_path / "hosts.toml").write_text(f'["{world.home.host}"]\nmirrors = ["{mirror.host}/hub"]\n')
        hosts = HostConfig.load({"MOORAGE_CONFIG_DIR": str(tmp_path)})
        async with AsyncClient(Store(str(tmp_path / "store")), keychain=Noting(), hosts=hosts, retry=_FAST) as client:
            await client.pull(f"{world.home.host}/team/app:v1")
        assert {repository for _, repository in asked} == {"hub/team/app"}
        assert {str(port) for port, _ in asked} == {mirror.host.rpartition(":")[2]}
    assert all("authorization" not in request.headers for request in world.home.requests)


async def test_a_name_that_a_mirror_cannot_have(world: _World, tmp_path: Path) -> None:
    """A namespace that makes the name too long is the mirror's shortcoming, not an error."""
    name = "/".join(["a" * 50] * 5)
    world.home.add_image(f"{name}:v1", {"a": "b"})
    await world.pull(f"{name}:v1")
