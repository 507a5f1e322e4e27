"""A store that fails between two requests, or in the middle of one: promise F7, and what it must not cost.

Law: while the store is away every request is answered 503 with Retry-After, in time; afterwards all goes on by itself,
nothing acknowledged is lost, and nothing half-written is to be seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest

from tests.faultproxy import Fault, FaultProxy, Scene
from tests.s3.servers import S3Server
from tests.servers import MoorageProcess

pytestmark = pytest.mark.timeout(300)

_MIB = 1024 * 1024
_PROMISED = 10.0
"""Seconds until an outage is told (F7)."""

_LOADED = 15.0
"""Seconds more that a machine may need which has other things to do."""

_INDEX = "application/vnd.oci.image.index.v1+json"
_REPOSITORY = "/v2/team/app"

OUTAGES = [
    pytest.param(Fault(swallow=True), id="blackhole"),
    pytest.param(Fault(reset=0), id="reset"),
    pytest.param(Fault(when=lambda scene: scene.answers, cut=10), id="cut-answers"),
    pytest.param(Fault(unavailable=True), id="503"),
    pytest.param(Fault(delay=60), id="delay"),
]


@dataclass(frozen=True)
class Harbour:
    """A replica whose line to its store is ours to spoil."""

    url: str
    line: FaultProxy
    http: httpx.Client

    def ask(self, method: str, path: str, **arguments: object) -> httpx.Response:
        """The answer to a request; ``path`` is below the repository, or a whole one."""
        place = path if path.startswith("/v2/") else f"{_REPOSITORY}/{path}"
        return self.http.request(method, f"{self.url}{place}", **arguments)  # type: ignore[arg-type]

    def push(self, content: bytes) -> str:
        """Pushes a blob; returns its digest."""
        answer = self.ask("POST", "blobs/uploads/", params={"digest": _digest(content)}, content=content)
        assert answer.status_code == 201, answer.text
        return _digest(content)

    def tag(self, tag: str, content: bytes) -> None:
        """Makes a tag name a manifest."""
        answer = self.ask("PUT", f"manifests/{tag}", content=content, headers={"Content-Type": _INDEX})
        assert answer.status_code == 201, answer.text


@pytest.fixture
def harbour(server: S3Server) -> Iterator[Harbour]:
    """A replica over a bucket of its own."""
    with _harbour(server) as harbour:
        yield harbour


@contextmanager
def _harbour(server: S3Server) -> Iterator[Harbour]:
    with ExitStack() as stack:
        place = urlsplit(server.endpoint)
        line = stack.enter_context(FaultProxy(str(place.hostname), place.port or 80))
        root = server.url(server.bucket(), "registry").replace(server.endpoint, line.endpoint)
        arguments = ("--no-redirect", "--drain-delay", "0s")
        replica = stack.enter_context(MoorageProcess(root, *arguments, environment=server.environment))
        yield Harbour(replica.url, line, stack.enter_context(httpx.Client(timeout=90)))


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _index(name: str) -> bytes:
    fields = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [], "annotations": {"name": name}}
    return json.dumps(fields).encode()


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_is_told_in_time_and_passes(harbour: Harbour, outage: Fault) -> None:
    """Whatever kind it is of: reads and writes alike are told, and all that was acknowledged is there afterwards."""
    blob, image = harbour.push(os.urandom(3 * _MIB)), _index("before")
    harbour.tag("kept", image)
    place = harbour.ask("POST", "blobs/uploads/").headers["Location"]
    layer = os.urandom(26 * _MIB)
    assert harbour.ask("PATCH", place, content=layer[:1000]).status_code == 202
    with harbour.line.failing(outage):
        _expect_refusals(harbour, place, layer, blob)
    _expect_recovery(harbour)
    assert _digest(harbour.ask("GET", f"blobs/{blob}").content) == blob
    assert harbour.ask("GET", "manifests/kept").content == image
    assert harbour.ask("GET", "tags/list").json()["tags"] in (["kept"], ["kept", "late"])
    _expect_upload_goes_on(harbour, place, layer)


def _expect_refusals(harbour: Harbour, place: str, layer: bytes, blob: str) -> None:
    index: dict[str, object] = {"headers": {"Content-Type": _INDEX}, "content": _index("late")}
    whole: dict[str, object] = {"params": {"digest": _digest(b"small")}, "content": b"small"}
    rest: dict[str, object] = {"content": layer[1000:], "headers": {"Content-Range": f"1000-{len(layer) - 1}"}}
    requests: list[tuple[str, str, dict[str, object]]] = [
        ("GET", f"blobs/{blob}", {}),
        ("HEAD", f"blobs/{blob}", {}),
        ("GET", "manifests/kept", {}),
        ("HEAD", "manifests/kept", {}),
        ("PUT", "manifests/late", index),
        ("DELETE", "manifests/late", {}),
        ("GET", "tags/list", {}),
        ("GET", "/v2/_catalog", {}),
        ("POST", "blobs/uploads/", {}),
        ("POST", "blobs/uploads/", whole),
        ("GET", place, {}),
        ("PATCH", place, rest),
    ]

    def ask(request: tuple[str, str, dict[str, object]]) -> tuple[str, int, bool, float]:
        method, path, arguments = request
        began = time.monotonic()
        answer = harbour.ask(method, path, **arguments)
        took = time.monotonic() - began
        return f"{method} {path}", answer.status_code, answer.headers.get("Retry-After", "").isdigit(), took

    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(ask, requests))
    print("\n".join(f"{took:5.1f} s  {status}  {name}" for name, status, _, took in answers))
    assert [(name, status, is_told) for name, status, is_told, _ in answers] == [
        (name, 503, True) for name, *_ in answers
    ]
    assert max(took for *_, took in answers) < _PROMISED + _LOADED


def _expect_recovery(harbour: Harbour) -> None:
    """It serves again without being touched; within 5 s where nothing else is to do."""
    began = time.monotonic()
    while harbour.ask("GET", "manifests/kept").status_code != 200:
        assert time.monotonic() - began < 5 + _LOADED, "no recovery"
        time.sleep(0.1)
    print(f"recovered after {time.monotonic() - began:.1f} s")


def _expect_upload_goes_on(harbour: Harbour, place: str, layer: bytes) -> None:
    """From where it is said to stand, at or behind what was acknowledged."""
    held = harbour.ask("GET", place)
    assert held.status_code == 204, held.text
    start = int(held.headers["Range"].partition("-")[2]) + 1
    assert 1000 <= start <= len(layer)
    if start < len(layer):
        headers = {"Content-Range": f"{start}-{len(layer) - 1}"}
        answer = harbour.ask("PATCH", place, content=layer[start:], headers=headers)
        assert answer.status_code == 202, answer.text
    assert harbour.ask("PUT", place, params={"digest": _digest(layer)}).status_code == 201
    assert harbour.ask("GET", f"blobs/{_digest(layer)}").content == layer


def test_an_outage_in_the_middle_of_a_part(harbour: Harbour) -> None:
    """Who is sending when the line goes dead is told as soon as everybody else, and the upload goes on afterwards."""
    layer = os.urandom(20 * _MIB)
    place = harbour.ask("POST", "blobs/uploads/").headers["Location"]
    assert harbour.ask("PATCH", place, content=layer[:1000]).status_code == 202
    harbour.tag("kept", _index("kept"))
    dead = _DeadFrom(b"partNumber=")
    with harbour.line.failing(Fault(when=dead, swallow=True)):
        headers = {"Content-Range": f"1000-{len(layer) - 1}"}
        answer = harbour.ask("PATCH", place, content=layer[1000:], headers=headers)
        took = time.monotonic() - dead.since
    print(f"told after {took:.1f} s")
    assert (answer.status_code, answer.headers["Retry-After"].isdigit()) == (503, True)
    assert took < _PROMISED + _LOADED
    _expect_recovery(harbour)
    _expect_upload_goes_on(harbour, place, layer)


class _DeadFrom:
    """True for everything from the second piece on of a request whose head holds ``mark``. ``since``: when."""

    def __init__(self, mark: bytes) -> None:
        self._mark, self.since = mark, 0.0

    def __call__(self, scene: Scene) -> bool:
        if not self.since and self._mark in scene.head and scene.carried > 0:
            self.since = time.monotonic()
        return self.since > 0


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(delay=0.02), id="delay"),
        pytest.param(Fault(cut=400_000, when=lambda scene: scene.answers), id="cut"),
        pytest.param(Fault(reset=2_500_000, when=lambda scene: scene.answers), id="reset"),
    ],
)
def test_a_bad_line_shows_nowhere(harbour: Harbour, fault: Fault) -> None:
    """Late pieces and answers that break off are the store's business: a blob that is read comes whole."""
    content = os.urandom(5 * _MIB)
    digest = harbour.push(content)
    with harbour.line.failing(fault):
        assert harbour.ask("GET", f"blobs/{digest}").content == content
        part = harbour.ask("GET", f"blobs/{digest}", headers={"Range": "bytes=100-4900000"})
    assert (part.status_code, part.content) == (206, content[100:4_900_001])
    assert harbour.line.met > 0


def test_a_slow_line_is_no_outage(harbour: Harbour) -> None:
    """A part that takes longer than an outage may last, and a store that thinks long over its completion: it is seen to
    live, so the push goes on."""
    layer = os.urandom(13 * _MIB)
    place = harbour.ask("POST", "blobs/uploads/").headers["Location"]
    with harbour.line.failing(Fault(rate=1.3 * _MIB, when=lambda scene: b"partNumber=" in scene.head)):
        assert harbour.ask("PATCH", place, content=layer).status_code == 202
    with harbour.line.failing(Fault(delay=9, when=_completes)):
        assert harbour.ask("PUT", place, params={"digest": _digest(layer)}).status_code == 201
    assert harbour.line.met > 0
    assert harbour.ask("GET", f"blobs/{_digest(layer)}").content == layer


def _completes(scene: Scene) -> bool:
    return scene.answers and scene.first and scene.head.startswith(b"POST") and b"uploadId=" in scene.head


def test_every_lost_answer_of_a_push(server: S3Server) -> None:
    """The answer to the n-th request that a push makes of the store is lost, for every n: the push succeeds all the
    same, or is told 503 and may be tried again; either way it ends well and leaves nothing of the upload behind."""
    bucket = server.bucket()
    layer = os.urandom(12 * _MIB + 5)
    with ExitStack() as stack:
        place = urlsplit(server.endpoint)
        line = stack.enter_context(FaultProxy(str(place.hostname), place.port or 80))
        root = server.url(bucket, "registry").replace(server.endpoint, line.endpoint)
        replica = stack.enter_context(MoorageProcess(root, "--drain-delay", "0s", environment=server.environment))
        http = stack.enter_context(httpx.Client(timeout=90))
        harbour = Harbour(replica.url, line, http)
        for number in range(1000):
            count = _Count(number)
            line.fault = Fault(when=count, reset=0)
            _push_until_done(harbour, layer)
            if not count.was_met:
                break
    assert number > 10
    left = [key for key in server.keys(bucket) if key.startswith(("registry/uploads/", "registry/tails/"))]
    assert left == []
    assert server.open_multiparts(bucket) == []


class _Count:
    """True once: for the answer to request ``number``."""

    def __init__(self, number: int) -> None:
        self._left, self.was_met, self._lock = number, False, threading.Lock()

    def __call__(self, scene: Scene) -> bool:
        with self._lock:
            if not (scene.answers and scene.first):
                return False
            self._left -= 1
            self.was_met |= self._left == -1
            return self._left == -1


def _push_until_done(harbour: Harbour, layer: bytes) -> None:
    for _ in range(5):
        opened = harbour.ask("POST", "blobs/uploads/")
        if opened.status_code == 202:
            place = opened.headers["Location"]
            sent = harbour.ask("PATCH", place, content=layer)
            if sent.status_code == 202:
                done = harbour.ask("PUT", place, params={"digest": _digest(layer)})
                if done.status_code == 201:
                    return
                opened = sent = done
            harbour.ask("DELETE", place)
            opened = sent
        assert opened.status_code == 503, opened.text
    raise AssertionError("the push never succeeds")
