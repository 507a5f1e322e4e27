"""A full disk under the S3 server: writes are refused clearly, reads go on, and room heals it (promise F8)."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from moorage.storage_backends.errors import StorageFull, StorageUnavailable
from moorage.storage_backends.s3 import Location, S3Store

from tests.crash.volume import Volume
from tests.s3.servers import SERVERS, running
from tests.servers import MoorageProcess

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk, which needs root"),
]

_MIB = 1024 * 1024
_INDEX = "application/vnd.oci.image.index.v1+json"


def _take_bytes(place: Path) -> None:
    with (place / "ballast").open("ab", buffering=0) as ballast:
        for size in (_MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(b"x" * size)


def _take_inodes(place: Path) -> None:
    folder = place / "ballast"
    folder.mkdir(exist_ok=True)
    try:
        for number in itertools.count(len(os.listdir(folder))):
            os.close(os.open(folder / str(number), os.O_CREAT))
    except OSError as exc:
        assert exc.errno == errno.ENOSPC  # noqa: PT017  # anything else is no full disk


def _give_back(place: Path) -> None:
    ballast = place / "ballast"
    if ballast.is_dir():
        for file in ballast.iterdir():
            file.unlink()
        ballast.rmdir()
    else:
        ballast.unlink()


@pytest.mark.parametrize("name", list(SERVERS))
@pytest.mark.parametrize("take", [pytest.param(_take_bytes, id="bytes"), pytest.param(_take_inodes, id="inodes")])
def test_a_full_disk(name: str, take: Callable[[Path], None]) -> None:
    """Pushes of layers and tags are answered 503 or 507 in JSON; what is there is read as ever; nothing is torn."""
    with Volume("ext4") as volume:
        volume.root.mkdir()
        with running(name, volume.root) as server:
            root = server.url(server.bucket(), "registry")
            arguments = ("--no-redirect", "--drain-delay", "0s")
            with MoorageProcess(root, *arguments, environment=server.environment) as replica:
                _fill_and_heal(f"{replica.url}/v2/team/app", take, volume.root.parent)


@pytest.mark.parametrize("name", list(SERVERS))
async def test_no_room_for_a_directory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as such, and not as the fault of the key, which is what versitygw makes of it."""
    with Volume("ext4") as volume:
        volume.root.mkdir()
        with running(name, volume.root) as server:
            for variable, value in server.environment.items():
                monkeypatch.setenv(variable, value)
            store = await S3Store.open(Location.parse(server.url(server.bucket())))
            _take_bytes(volume.root.parent)
            for data in (b"", b"x" * 100):
                with pytest.raises((StorageFull, StorageUnavailable)):
                    await _put_many(store, data)
            await store.close()


async def _put_many(store: S3Store, data: bytes) -> None:
    for number in range(1000):
        await store.put(f"{number}/{len(data)}", data)


def _fill_and_heal(home: str, take: Callable[[Path], None], disk: Path) -> None:
    layer, late = os.urandom(3 * _MIB), os.urandom(14 * _MIB)
    with httpx.Client(timeout=90) as http:
        assert _push(http, home, layer) == 201
        assert _tag(http, home, "kept", "one") == 201
        _expect_refusal(http, home, late, lambda: take(disk))
        # What a server gives back of its own just now may be enough for a tag, so it is either refused or done.
        moved, made = _tag(http, home, "kept", "two"), _tag(http, home, "new", "two")
        assert {moved, made} <= {201, 503, 507}
        assert http.get(f"{home}/blobs/{_digest(layer)}").content == layer
        assert http.get(f"{home}/manifests/kept").content == _index("two" if moved == 201 else "one")
        assert http.get(f"{home}/manifests/new").status_code == (200 if made == 201 else 404)
        _give_back(disk)
        deadline = time.monotonic() + 60  # MinIO looks at its disk every few seconds
        while (status := _push(http, home, late)) != 201:
            assert status in (503, 507)
            assert time.monotonic() < deadline, "no recovery"
            time.sleep(0.2)
        assert _tag(http, home, "kept", "two") == 201
        assert http.get(f"{home}/blobs/{_digest(late)}").content == late
        assert http.get(f"{home}/manifests/kept").content == _index("two")


def _expect_refusal(http: httpx.Client, home: str, layer: bytes, take: Callable[[], None]) -> None:
    """The layer is refused as soon as the disk is full; a server may give back some of it first, which is taken too."""
    for _ in range(20):
        take()
        status = _push(http, home, layer)
        if status != 201:
            assert status in (503, 507)
            return
        assert http.delete(f"{home}/blobs/{_digest(layer)}").status_code in (202, 503, 507)
    raise AssertionError("a full disk takes every layer")


def _push(http: httpx.Client, home: str, content: bytes) -> int:
    return _status(http.post(f"{home}/blobs/uploads/", params={"digest": _digest(content)}, content=content))


def _tag(http: httpx.Client, home: str, tag: str, name: str) -> int:
    return _status(http.put(f"{home}/manifests/{tag}", content=_index(name), headers={"Content-Type": _INDEX}))


def _status(answer: httpx.Response) -> int:
    """The status of an answer; a refusal is an error of the protocol's."""
    if answer.status_code != 201:
        assert answer.json()["errors"][0]["code"], answer.text
    return answer.status_code


def _index(name: str) -> bytes:
    fields = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [], "annotations": {"name": name}}
    return json.dumps(fields).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
