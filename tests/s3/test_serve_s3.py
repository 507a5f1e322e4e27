"""``moorage serve`` over a bucket, as people run it: replicas side by side, a store that goes away and comes back."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from tests.s3.servers import SERVERS, S3Server, running
from tests.servers import MoorageProcess

_MIB = 1024 * 1024
_PROMISED = 10.0
"""Seconds in which an outage must be told (promise F7)."""

_LOADED = 15.0
"""Seconds more that a machine may need which has other things to do."""


@contextmanager
def serving(server: S3Server, bucket: str, *arguments: str) -> Iterator[MoorageProcess]:
    """A replica over the bucket."""
    root = server.url(bucket, "registry")
    with MoorageProcess(root, "--drain-delay", "0s", *arguments, environment=server.environment) as replica:
        yield replica


def test_an_upload_moves_between_replicas(server: S3Server) -> None:
    """Every request of an upload may go to another replica: chunks of any size, parts and tails, the same bytes come
    out, and nothing of the upload is left in the bucket."""
    content = os.urandom(30 * _MIB)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    bucket = server.bucket()
    with (
        serving(server, bucket) as one,
        serving(server, bucket) as other,
        httpx.Client(follow_redirects=True, timeout=90) as client,
    ):
        place = client.post(f"{one.url}/v2/a/b/blobs/uploads/").headers["Location"]
        cuts = [0, 5, 1000, 13 * _MIB, 13 * _MIB + 1, 26 * _MIB, len(content)]
        for turn, (start, stop) in enumerate(pairwise(cuts)):
            replica = (other, one)[turn % 2]
            headers = {"Content-Range": f"{start}-{stop - 1}"}
            answer = client.patch(f"{replica.url}{place}", content=content[start:stop], headers=headers)
            assert (answer.status_code, answer.headers["Range"]) == (202, f"0-{stop - 1}")
            place = answer.headers["Location"]
        assert client.put(f"{other.url}{place}", params={"digest": digest}).status_code == 201
        for replica in (one, other):
            found = client.get(f"{replica.url}/v2/a/b/blobs/{digest}")
            assert found.content == content
            part = client.get(f"{replica.url}/v2/a/b/blobs/{digest}", headers={"Range": "bytes=13631487-13631490"})
            assert (part.status_code, part.content) == (206, content[13631487:13631491])
    assert not [key for key in server.keys(bucket) if key.startswith(("registry/uploads/", "registry/tails/"))]
    assert server.open_multiparts(bucket) == []


@pytest.mark.parametrize("name", list(SERVERS))
def test_an_outage_is_told_and_passes(name: str, tmp_path: Path) -> None:
    """While the store does not answer, be it that connections are refused or that nothing moves, every request is
    answered 503 with Retry-After in time; afterwards all goes on, and what was acknowledged is there."""
    with running(name, tmp_path) as server:
        bucket = server.bucket()
        with serving(server, bucket) as replica, httpx.Client(timeout=90, follow_redirects=True) as client:
            url = f"{replica.url}/v2/a/b/blobs/{_push(client, replica, b'before')}"
            server.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, server.process.pid, os.WSTOPPED)  # a busy machine lets it answer for a moment yet
            _expect_outage(client, replica, url)
            server.process.send_signal(signal.SIGCONT)
            _expect_recovery(client, url)
            assert client.get(url).content == b"before"
            second = f"{replica.url}/v2/a/b/blobs/{_push(client, replica, b'after')}"
            server.process.kill()
            server.process.wait()
            _expect_outage(client, replica, second)


def test_config_check_tells_what_the_store_promises(server: S3Server) -> None:
    """Each promise with what was seen; what is not needed may be missing."""
    done = _moorage(server, "config", "check", "--root", server.url(server.bucket(), "registry"))
    said = [line for line in done.stdout.splitlines() if line.startswith("store: ")]
    assert done.returncode == 0, done.stderr
    assert len([line for line in said if line.startswith("store: yes")]) >= 6
    done = _moorage(server, "config", "check", "--root", server.url("nosuchbucket"))
    assert (done.returncode, "there is no bucket 'nosuchbucket'" in done.stderr) == (1, True)


def test_a_bucket_that_is_not_there(server: S3Server) -> None:
    """The operator reads which bucket is missing, and nothing starts."""
    done = _moorage(server, "serve", "--root", server.url("nosuchbucket"), "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert "there is no bucket 'nosuchbucket'" in done.stderr
    assert "Traceback" not in done.stderr


def _moorage(server: S3Server, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("moorage")), *words]
    return subprocess.run(command, env={**os.environ, **server.environment}, capture_output=True, text=True, timeout=60)


def _push(client: httpx.Client, replica: MoorageProcess, content: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    place = client.post(f"{replica.url}/v2/a/b/blobs/uploads/").headers["Location"]
    answer = client.put(f"{replica.url}{place}", params={"digest": digest}, content=content)
    assert answer.status_code == 201, answer.text
    return digest


def _expect_outage(client: httpx.Client, replica: MoorageProcess, url: str) -> None:
    def ask(method: str, place: str) -> tuple[int, bool]:
        answer = client.request(method, place)
        return answer.status_code, answer.headers.get("Retry-After", "").isdigit()

    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        answers = pool.map(ask, ("GET", "HEAD", "POST"), (url, url, f"{replica.url}/v2/a/b/blobs/uploads/"))
        assert list(answers) == [(503, True)] * 3
    assert time.monotonic() - began < _PROMISED + _LOADED


def _expect_recovery(client: httpx.Client, url: str) -> None:
    deadline = time.monotonic() + 5 + _LOADED
    while client.head(url).status_code != 200:
        assert time.monotonic() < deadline, "no recovery"
        time.sleep(0.1)
