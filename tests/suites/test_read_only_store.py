"""A store that may only be read, as a CI cache that is mounted read-only: its images can be used all the same."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from moorage.puller import Client, FixedKeychain, HostConfig, Reference
from moorage.puller.store import Store
from moorage.registry.testing import LoopbackRegistry

pytestmark = pytest.mark.root  # a mode stops everybody but root; a read-only mount stops root too

NAME = "team/app:v1"


@pytest.fixture
def image(registry: LoopbackRegistry) -> str:
    """The reference of an image with two layers."""
    registry.add_image(NAME, {"etc/motd": "hello"}, {"etc/issue": "Moorage"})
    return f"{registry.host}/{NAME}"


@pytest.fixture
def client(tmp_path: Path, image: str) -> Iterator[Client]:
    """A client whose store has the image and is mounted read-only."""
    written, store = tmp_path / "written", tmp_path / "store"
    with Client(written, keychain=FixedKeychain(None), hosts=HostConfig.empty()) as writer:
        writer.pull(image)
    store.mkdir()
    subprocess.run(["mount", "--bind", written, store], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
        with Client(store, keychain=FixedKeychain(None), hosts=HostConfig.empty()) as reader:
            yield reader
    finally:
        subprocess.run(["umount", "--lazy", store], check=True)


def test_it_can_be_looked_at(client: Client, image: str) -> None:
    """List, history, verify."""
    store = client.store
    assert [stored.name for stored in store.images()] == [image]
    assert len(store.history(Reference.parse(image)).steps) == 2
    assert store.verify().defects == ()


def test_its_images_can_be_unpacked(client: Client, image: str, tmp_path: Path) -> None:
    """Elsewhere, with the registry asked nothing."""
    result = client.pull(image, unpack=tmp_path / "rootfs", policy="never")
    assert (tmp_path / "rootfs" / "etc" / "issue").read_text() == "Moorage"
    assert result.fetched == 0


def test_a_pull_of_what_is_there(client: Client, image: str, registry: LoopbackRegistry) -> None:
    """One HEAD, and nothing is written."""
    registry.forget_requests()
    assert client.pull(image).fetched == 0
    assert [request.method for request in registry.requests] == ["HEAD"]


def test_what_would_change_it_says_so(client: Client, image: str, registry: LoopbackRegistry) -> None:
    """In the system's own words, with the path."""
    registry.add_image("team/other:v1", {"etc/motd": "other"})
    with pytest.raises(OSError, match="Read-only file system"):
        client.pull(f"{registry.host}/team/other:v1")
    assert Store(client.store.root).verify().defects == ()
