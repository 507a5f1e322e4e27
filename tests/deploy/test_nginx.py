"""The compose file's services together: large layers, chunks, redirects and logins through nginx as it is shipped."""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from moorage.registry.web.protocol import Connection

from tests.deploy.stack import PASSWORD, USER, Stack, stack, with_redirects
from tests.interop.images import sample_layout
from tests.interop.programs import Program, find

pytestmark = pytest.mark.timeout(300)

_MIB = 1024 * 1024
_PIECE = random.Random(5).randbytes(_MIB)
_BUFFERED = "buffered to a temporary file"


class Layer:
    """A layer that never was in memory. ``size``: MiB."""

    def __init__(self, size: int) -> None:
        self.size, self._head = size * _MIB, os.urandom(_MIB)
        self._pieces = size
        hashed = hashlib.sha256()
        for piece in self:
            hashed.update(piece)
        self.digest = f"sha256:{hashed.hexdigest()}"

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        for _ in range(self._pieces - 1):
            yield _PIECE


@pytest.fixture
def client(shipped: Stack) -> Iterator[httpx.Client]:
    """Somebody with an account."""
    with _client(shipped) as client:
        yield client


def _client(to: Stack) -> httpx.Client:
    return httpx.Client(base_url=to.url, verify=to.trust(), auth=(USER, PASSWORD), timeout=240)


def test_a_layer_of_more_than_a_gibibyte_streams(shipped: Stack, client: httpx.Client) -> None:
    """nginx carries it both ways and keeps nothing of it: no temporary file, no byte to the disk, no memory."""
    layer = Layer(1100)
    before = _written(shipped)
    assert _push(client, layer) == 201
    with client.stream("GET", f"/v2/large/layer/blobs/{layer.digest}") as answer:
        assert answer.status_code == 200
        hashed = hashlib.sha256()
        for piece in answer.iter_raw(_MIB):
            hashed.update(piece)
    assert f"sha256:{hashed.hexdigest()}" == layer.digest
    assert _written(shipped) - before < 4 * _MIB
    assert max(map(_peak, shipped.nginx_workers())) < 100 * _MIB
    assert _BUFFERED not in shipped.log("nginx")


def test_the_check_of_streaming_can_fail(tmp_path: Path) -> None:
    """Without ``proxy_request_buffering off`` a layer does go to a file, and the log says so."""

    def spoil(text: str) -> str:
        assert "proxy_request_buffering off;" in text
        return text.replace("proxy_request_buffering off;", "")

    with stack(tmp_path, with_redirects, nginx=spoil) as running, _client(running) as client:
        before = _written(running)
        assert _push(client, Layer(16)) == 201
        assert _BUFFERED in running.log("nginx")
        assert _written(running) - before >= 16 * _MIB


def test_nginx_closes_idle_connections_first() -> None:
    """A request on a connection that the registry is just closing is lost, and nginx sends no PATCH twice: 502."""
    shipped = Path(__file__).parents[2] / "deploy" / "nginx.conf"
    (seconds,) = re.findall(r"^ *keepalive_timeout ([0-9]+)s;$", shipped.read_text(), re.MULTILINE)
    assert int(seconds) < Connection.idle_deadline


def test_chunks_go_to_both_replicas(shipped: Stack, client: httpx.Client) -> None:
    """An upload in chunks, each perhaps at another replica, with bodies of known and of unknown length."""
    content = os.urandom(5 * _MIB)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    place = client.post("/v2/chunks/layer/blobs/uploads/").headers["Location"]
    assert place.startswith("/v2/")  # relative: whatever stands in front needs to know nothing
    for number, (start, stop) in enumerate(pairwise([0, 1000, _MIB, 3 * _MIB, 4 * _MIB + 7, len(content)])):
        chunk = content[start:stop]
        headers = {"Content-Range": f"{start}-{stop - 1}"}
        answer = client.patch(place, content=chunk if number % 2 else iter([chunk]), headers=headers)
        assert (answer.status_code, answer.headers["Range"]) == (202, f"0-{stop - 1}")
        place = answer.headers["Location"]
    assert client.put(place, params={"digest": digest}).status_code == 201
    assert client.get(f"/v2/chunks/layer/blobs/{digest}").content == content
    assert client.get(f"/v2/chunks/layer/blobs/{digest}", headers={"Range": "bytes=7-9"}).content == content[7:10]
    for name in ("registry1", "registry2"):
        _await_line(shipped, name, '"PATCH"')


def test_nobody_without_an_account(shipped: Stack) -> None:
    """The challenge names the token endpoint as clients reach it, and what is not the registry's API is not there."""
    with httpx.Client(base_url=shipped.url, verify=shipped.trust(), timeout=60) as nobody:
        answer = nobody.get("/v2/")
        assert answer.status_code == 401
        assert f'realm="{shipped.url}/token"' in answer.headers["WWW-Authenticate"]
        assert nobody.post("/v2/a/b/blobs/uploads/").status_code == 401
        for inside in ("/metrics", "/healthz", "/readyz"):
            assert nobody.get(inside).status_code == 404


def test_the_token_of_a_job_may_be_as_long_as_the_registry_takes(shipped: Stack) -> None:
    """12 KiB, as the password of a Basic login: it is the registry that refuses this one."""
    with httpx.Client(base_url=shipped.url, verify=shipped.trust(), auth=("oidc", "x" * 12_000), timeout=60) as job:
        answer = job.get("/token")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (401, "UNAUTHORIZED")


def test_skopeo_pushes_and_pulls(shipped: Stack, tmp_path: Path) -> None:
    """A client that logs in, takes a token from one replica to the other, and knows the CA."""
    digests = sample_layout(tmp_path / "layout", seed="deploy")
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates" / "ca.crt").write_bytes(shipped.ca.read_bytes())
    skopeo = Program((find("skopeo"), "--insecure-policy"), tmp_path / "skopeo")
    there = f"docker://{shipped.host}/deploy/app:latest"
    for verb, source, target in (("dest", f"oci:{tmp_path}/layout:app", there), ("src", there, f"dir:{tmp_path}/out")):
        access = [f"--{verb}-cert-dir={tmp_path}/certificates", f"--{verb}-creds={USER}:{PASSWORD}"]
        skopeo("copy", "--preserve-digests", *access, source, target)
    found = hashlib.sha256((tmp_path / "out" / "manifest.json").read_bytes()).hexdigest()
    assert f"sha256:{found}" == digests["app"]


def test_redirects_pass_through(tmp_path: Path) -> None:
    """With a public endpoint a layer comes from the S3 server: nginx hands on the 307 and its Location untouched. One
    replica gone, nginx asks the other, and nobody notices."""
    layer = Layer(3)
    with stack(tmp_path, with_redirects) as running, _client(running) as client:
        assert _push(client, layer) == 201
        blob = f"/v2/large/layer/blobs/{layer.digest}"
        answer = client.get(blob)
        assert answer.status_code == 307
        assert answer.headers["Location"].startswith(f"{running.bucket}/registry/moorage/data/")
        assert httpx.get(answer.headers["Location"], timeout=60).content == b"".join(layer)
        assert client.head(blob).status_code == 200
        running.replicas[0].kill()
        running.replicas[0].wait()
        assert [client.get(blob).status_code for _ in range(6)] == [307] * 6


def _await_line(running: Stack, name: str, part: str) -> None:
    """Waits until a service has logged it: access logs are written a while after the answer."""
    deadline = time.monotonic() + 60
    while part not in running.log(name):
        assert time.monotonic() < deadline, f"{name} did not log {part}"
        time.sleep(0.05)


def _push(client: httpx.Client, layer: Layer) -> int:
    place = client.post("/v2/large/layer/blobs/uploads/").headers["Location"]
    headers = {"Content-Length": str(layer.size), "Content-Type": "application/octet-stream"}
    answer = client.patch(place, content=iter(layer), headers=headers)
    assert answer.status_code == 202, answer.text
    return client.put(answer.headers["Location"], params={"digest": layer.digest}).status_code


def _written(running: Stack) -> int:
    """Bytes that nginx caused to be written to disks."""
    return sum(_field(Path(f"/proc/{pid}/io"), "write_bytes") for pid in running.nginx_workers())


def _peak(pid: int) -> int:
    return _field(Path(f"/proc/{pid}/status"), "VmHWM") * 1024


def _field(file: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(f"{name}:"))
