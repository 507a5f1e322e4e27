"""A disk that fails under the S3 server: what needs it is refused clearly, nothing acknowledged is lost (rule F8)."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.crash.volume import Volume
from tests.s3.servers import SERVERS, S3Server, running
from tests.servers import MoorageProcess

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk of its own, which needs root"),
]

_LAYER, _LATE = os.urandom(3 << 20), os.urandom(14 << 20)
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": []}).encode()


@pytest.mark.parametrize("name", list(SERVERS))
def test_a_disk_that_fails(name: str) -> None:
    """Every write and sync fails: pushes are answered 503 with Retry-After, and no other bytes are read than were
    written. With a disk that works, and the server started again, the same registry goes on, with all that it had
    acknowledged."""
    with Volume("ext4") as volume:
        volume.root.mkdir()
        with running(name, volume.root) as server:
            root, arguments = server.url(server.bucket(), "registry"), ("--no-redirect", "--drain-delay", "0s")
            with (
                MoorageProcess(root, *arguments, environment=server.environment) as replica,
                httpx.Client(base_url=f"{replica.url}/v2/team/app", timeout=90) as http,
            ):
                assert _push(http, _LAYER).status_code == _tag(http, "kept").status_code == 201
                volume.fail()
                for answer in (_push(http, _LATE), _tag(http, "new")):
                    assert (answer.status_code, "retry-after" in answer.headers) == (503, True), answer.text
                    assert answer.json()["errors"]
                read = http.get(f"/blobs/{_digest(_LAYER)}")
                # MinIO lists nothing while its only disk fails, and says so with 200: to us the blob is not there then.
                assert read.content == _LAYER if read.status_code == 200 else read.status_code in (404, 503)
                with _again(server, volume):
                    _await_push(http)
                    assert http.get("/manifests/new").status_code == 404
                    assert http.get("/manifests/kept").content == _MANIFEST
                    for content in (_LAYER, _LATE):
                        assert http.get(f"/blobs/{_digest(content)}").content == content


@contextmanager
def _again(server: S3Server, volume: Volume) -> Iterator[None]:
    """The server as it was, once its disk has been changed for one that works."""
    environment = Path(f"/proc/{server.process.pid}/environ").read_text().rstrip("\0").split("\0")
    server.process.kill()
    server.process.wait()
    volume.unmount()
    volume.mount()
    process = subprocess.Popen(
        server.process.args,
        env=dict(entry.split("=", 1) for entry in environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _await_push(http: httpx.Client) -> None:
    deadline = time.monotonic() + 120
    while (answer := _push(http, _LATE)).status_code != 201:
        assert answer.status_code == 503, answer.text
        assert time.monotonic() < deadline, "no recovery"
        time.sleep(0.2)


def _push(http: httpx.Client, content: bytes) -> httpx.Response:
    return http.post("/blobs/uploads/", params={"digest": _digest(content)}, content=content)


def _tag(http: httpx.Client, tag: str) -> httpx.Response:
    return http.put(f"/manifests/{tag}", content=_MANIFEST, headers={"Content-Type": _INDEX})


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
