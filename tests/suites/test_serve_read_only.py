"""``moorage serve --read-only`` over a medium that nobody can write to: a snapshot, an image, a mount for readers."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from moorage.registry.store import LocalRegistry
from moorage.storage_backends.durability import Disk
from moorage.storage_backends.errors import StorageError, StorageUnavailable
from moorage.storage_backends.filesystem import FilesystemStore
from moorage.storage_backends.root import accept_root
from moorage.storage_backends.tree import Tree

from tests.accounts import hashed
from tests.content import Content, image, push, repository
from tests.servers import MoorageProcess
from tests.suites.store_content import content, fill, listing, outcome, upload_of

IMAGE = image("read-only")
PASSWORD = "sesame"


class _Refusing(Disk):
    """Where a start cannot write, for the reason ``number``."""

    def __init__(self, number: int) -> None:
        self._number = number

    def sync_directory(self, path: str) -> None:
        raise OSError(self._number, os.strerror(self._number))


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    """A store with two objects and an upload that was left."""
    store = await FilesystemStore.open(tmp_path / "root")
    await fill(store, "a/b", "a/c")
    await upload_of(store, "d", b"x")
    await store.close()
    return tmp_path / "root"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM], ids=errno.errorcode.__getitem__)
async def test_what_cannot_be_written_to_is_read(root: Path, number: int) -> None:
    """By whoever asks for no more than that, and it says what it is."""
    store = await FilesystemStore.open(root, disk=_Refusing(number), read_only=True)
    assert not store.capabilities.writable
    assert (await listing(store, "a/"), await content(store, "a/b")) == (["a/b", "a/c"], b"a/b")
    assert await outcome(store.put("a/d", b"")) is StorageUnavailable
    await store.close()
    assert FilesystemStore.capabilities.writable, "what is known of one root is not known of others"


@pytest.mark.parametrize(
    ("number", "read_only"),
    [pytest.param(errno.EROFS, False, id="who may write"), pytest.param(errno.EIO, True, id="a broken disk")],
)
async def test_others_are_told_that_it_fails(root: Path, number: int, *, read_only: bool) -> None:
    """A start that is to write does not begin, nor does one whose disk fails for another reason."""
    with pytest.raises(StorageUnavailable, match=os.strerror(number)):
        await FilesystemStore.open(root, disk=_Refusing(number), read_only=read_only)


async def test_a_root_that_can_be_written_to_is(root: Path) -> None:
    """Asking for no writes changes nothing where they succeed."""
    store = await FilesystemStore.open(root, read_only=True)
    assert store.capabilities.writable
    await store.close()


def test_it_must_be_a_store(tmp_path: Path) -> None:
    """A directory that holds none, or that is not there, is refused by name; and a file."""
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(StorageError, match=f"{place} holds no Moorage store"):
            accept_root(Tree(str(place), Disk()))


def test_it_must_tell_upper_from_lower_case(root: Path) -> None:
    """Or one tag would be read as another."""
    (root / ".MOORAGE").mkdir()
    with pytest.raises(StorageError, match="upper from lower case"):
        accept_root(Tree(str(root), Disk()))


# -- the server, on a read-only mount


async def _fill(root: Path) -> None:
    store = await FilesystemStore.open(root)
    registry = await LocalRegistry.open(store)
    await push(registry, repository(), IMAGE, "v1")
    await registry.start_upload(repository())
    await store.close()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """The root of a registry with an image, mounted read-only."""
    written, medium = tmp_path / "written", tmp_path / "medium"
    asyncio.run(_fill(written / "root"))
    medium.mkdir()
    subprocess.run(["mount", "--bind", written, medium], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", medium], check=True)
        yield medium / "root"
    finally:
        subprocess.run(["umount", "--lazy", medium], check=True)


def _assert_readable(client: httpx.Client, wanted: Content) -> None:
    assert client.get("/readyz").status_code == 200
    assert client.get("/v2/_catalog").json() == {"repositories": [str(repository())]}
    assert client.get(f"/v2/{repository()}/tags/list").json()["tags"] == ["v1"]
    assert client.get(f"/v2/{repository()}/manifests/v1").content == wanted.manifest.content
    for one in wanted.blobs:
        assert client.get(f"/v2/{repository()}/blobs/{one.digest}").content == one.content


@pytest.mark.root
def test_a_read_only_mount_is_served(mounted: Path) -> None:
    """Everything that reads works at every worker, everything else is 405, and the log tells what it found."""
    with (
        MoorageProcess(mounted, "--read-only", "--upload-ttl", "100ms", workers=2) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        for _ in range(4):
            _assert_readable(client, IMAGE)
        assert client.post(f"/v2/{repository()}/blobs/uploads/").status_code == 405
        assert client.delete(f"/v2/{repository()}/manifests/v1").status_code == 405
        assert "cannot be written to" in server.errors
        assert server.errors.count("WARNING") == 0, server.errors


@pytest.mark.root
def test_who_would_write_does_not_start(mounted: Path) -> None:
    """Without --read-only the first line says what is wrong."""
    with pytest.raises(AssertionError, match=r"cannot open .*: Read-only file system"), MoorageProcess(mounted):
        pass


@pytest.mark.root
def test_logins_need_a_key_elsewhere(mounted: Path, tmp_path: Path) -> None:
    """Beside the root none can be made, and the line says which setting helps; with one, logins work, and give
    tokens, but no refresh tokens, which would have to be kept."""
    accounts = tmp_path / "accounts"
    accounts.write_text(f"alice:{hashed(PASSWORD)}\n")
    arguments = ("--read-only", "--htpasswd", str(accounts))
    with pytest.raises(AssertionError, match=r"cannot make the signing key .*set signing_key"):
        MoorageProcess(mounted, *arguments).__enter__()
    with (
        MoorageProcess(mounted, *arguments, "--signing-key", str(tmp_path / "key")) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        assert client.get("/v2/").status_code == 401
        wish = {
            "username": "alice",
            "password": PASSWORD,
            "scope": f"repository:{repository()}:pull registry:catalog:*",
        }
        answer = client.post("/token", data=wish | {"grant_type": "password", "access_type": "offline"})
        assert (answer.status_code, "refresh_token" in answer.json()) == (200, False)
        client.headers["authorization"] = f"Bearer {answer.json()['token']}"
        _assert_readable(client, IMAGE)
