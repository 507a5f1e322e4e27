"""The registry that we give to people's tests: real answers, and every fault as it says."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from moorage.registry.testing import (
    Corrupt,
    Drop,
    DropUpload,
    IgnoreRange,
    LoopbackRegistry,
    Refuse,
    Slow,
    Stall,
)

CONTENT = bytes(range(256)) * 400
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
BLOB = f"/v2/team/app/blobs/{DIGEST}"


@pytest.fixture(scope="module")
def running() -> Iterator[LoopbackRegistry]:
    """One for all tests of this file; it has one blob."""
    with LoopbackRegistry() as registry:
        status, _, _ = ask(registry, "POST", f"/v2/team/app/blobs/uploads/?digest={DIGEST}", CONTENT)
        assert status == 201
        yield registry


@pytest.fixture
def loopback(running: LoopbackRegistry) -> LoopbackRegistry:
    """As new."""
    running.heal()
    running.forget_requests()
    return running


def ask(
    registry: LoopbackRegistry, method: str, target: str, body: bytes = b"", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer, on a connection of its own."""
    with closing(http.client.HTTPConnection(registry.host, timeout=60)) as connection:
        connection.request(method, target, body or None, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def test_the_fixture_is_an_empty_registry(registry: LoopbackRegistry) -> None:
    """As installed users get it: by the entry point, without a conftest."""
    assert ask(registry, "GET", "/v2/")[0] == 200
    assert json.loads(ask(registry, "GET", "/v2/_catalog")[2]) == {"repositories": []}


def test_an_image_is_added_in_one_line(loopback: LoopbackRegistry) -> None:
    """And has the same digest every time."""
    digest = loopback.add_image("team/image:v1", {"etc/motd": "hi", "bin/x": b"\x00"}, {"etc/motd": "ho"})
    assert digest == loopback.add_image("team/image:v1", {"bin/x": b"\x00", "etc/motd": "hi"}, {"etc/motd": "ho"})
    status, headers, manifest = ask(loopback, "GET", "/v2/team/image/manifests/v1")
    assert (status, headers["docker-content-digest"]) == (200, digest)
    layers = json.loads(manifest)["layers"]
    layer = ask(loopback, "GET", f"/v2/team/image/blobs/{layers[0]['digest']}")[2]
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer))) as archive:
        assert archive.getnames() == ["bin/x", "etc/motd"]


def test_requests_are_remembered(loopback: LoopbackRegistry) -> None:
    """Method, path, query, headers, in order."""
    ask(loopback, "GET", "/v2/team/app/tags/list?n=1", Accept="application/json")
    ask(loopback, "HEAD", BLOB)
    first, second = loopback.requests
    assert (first.method, first.path, first.query) == ("GET", "/v2/team/app/tags/list", "n=1")
    assert first.headers["accept"] == "application/json"
    assert (second.method, second.path, second.fault) == ("HEAD", BLOB, None)


def test_a_refusal_has_its_headers_and_stops_after_its_times(loopback: LoopbackRegistry) -> None:
    """429 twice, then well; what does not fit is spared, and so are the first ones."""
    injected = loopback.inject(Refuse(429, retry_after=7), method="GET", path="*/blobs/*", skip=1, times=2)
    assert ask(loopback, "HEAD", BLOB)[0] == 200
    assert ask(loopback, "GET", "/v2/")[0] == 200
    assert [ask(loopback, "GET", BLOB)[0] for _ in range(4)] == [200, 429, 429, 200]
    assert injected.hits == 2
    loopback.inject(Refuse(503))
    assert ask(loopback, "GET", BLOB)[1].get("retry-after") is None
    refused = loopback.inject(Refuse(429, retry_after=7), times=None)
    status, headers, body = ask(loopback, "GET", BLOB)
    assert (status, headers["retry-after"]) == (429, "7")
    assert json.loads(body)["errors"][0]["code"] == "TOOMANYREQUESTS"
    assert loopback.requests[-1].fault is refused.fault
    loopback.heal()
    assert ask(loopback, "GET", BLOB)[0] == 200


@pytest.mark.parametrize("after", [0, 1, 70_000])
def test_a_drop_sends_so_many_bytes(loopback: LoopbackRegistry, after: int) -> None:
    """The length said is the whole one."""
    loopback.inject(Drop(after))
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(loopback, "GET", BLOB)
    assert caught.value.partial == CONTENT[:after]
    assert ask(loopback, "GET", BLOB)[2] == CONTENT


def test_a_drop_before_the_status_line(loopback: LoopbackRegistry) -> None:
    """No answer at all."""
    loopback.inject(Drop())
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        ask(loopback, "GET", BLOB)


def test_a_dropped_upload_leaves_no_blob(loopback: LoopbackRegistry) -> None:
    """The connection breaks while the body is under way; the next try is well."""
    content = CONTENT * 20
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    target = f"/v2/team/app/blobs/uploads/?digest={digest}"
    loopback.inject(DropUpload(100_000), method="POST")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        ask(loopback, "POST", target, content)
    assert ask(loopback, "HEAD", f"/v2/team/app/blobs/{digest}")[0] == 404
    assert ask(loopback, "POST", target, content)[0] == 201


def test_a_corrupt_body_differs_in_one_byte(loopback: LoopbackRegistry) -> None:
    """Everything else is as it should be."""
    loopback.inject(Corrupt(at=50_000))
    status, headers, body = ask(loopback, "GET", BLOB)
    assert (status, headers["content-length"]) == (200, str(len(CONTENT)))
    assert [at for at in range(len(CONTENT)) if body[at] != CONTENT[at]] == [50_000]


def test_slow_is_slow(loopback: LoopbackRegistry) -> None:
    """By its delay and its rate."""
    loopback.inject(Slow(delay=0.1, rate=500_000))
    began = time.monotonic()
    assert ask(loopback, "GET", BLOB)[2] == CONTENT
    assert 0.28 < time.monotonic() - began < 60


def test_a_stall_sends_no_more(loopback: LoopbackRegistry) -> None:
    """The connection stays open until the client has had enough."""
    loopback.inject(Stall(after=1000))
    with closing(http.client.HTTPConnection(loopback.host, timeout=60)) as connection:
        connection.request("GET", BLOB)
        answer = connection.getresponse()
        assert answer.read(1000) == CONTENT[:1000]
        connection.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            answer.read(1)


def test_a_range_is_ignored(loopback: LoopbackRegistry) -> None:
    """As some proxies do."""
    assert ask(loopback, "GET", BLOB, Range="bytes=5-9")[0::2] == (206, CONTENT[5:10])
    loopback.inject(IgnoreRange())
    assert ask(loopback, "GET", BLOB, Range="bytes=5-9")[0::2] == (200, CONTENT)
