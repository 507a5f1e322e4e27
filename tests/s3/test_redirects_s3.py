"""Redirects to real S3 servers: what the presigned URL brings, what it does not let in, and who never learns of it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.accounts import hashed
from tests.roundrobin import RoundRobin
from tests.s3.servers import S3Server
from tests.servers import MoorageProcess

_CONTENT = os.urandom(100_000)
_PATH = f"/v2/a/b/blobs/sha256:{hashlib.sha256(_CONTENT).hexdigest()}"


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """A client that follows nothing by itself."""
    with httpx.Client(trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def replica(server: S3Server, bucket: str, tmp_path: Path, client: httpx.Client) -> Iterator[MoorageProcess]:
    """A registry that holds the blob; its access log is ``tmp_path / "log"``."""
    root = server.url(bucket, f"r{os.urandom(4).hex()}")
    with MoorageProcess(
        root, "--drain-delay", "0s", "--log-level", "debug", environment=server.environment, log=tmp_path / "log"
    ) as replica:
        place = client.post(f"{replica.url}/v2/a/b/blobs/uploads/").headers["Location"]
        digest = _PATH.rpartition("/")[2]
        answer = client.put(f"{replica.url}{place}", params={"digest": digest}, content=_CONTENT)
        assert answer.status_code == 201, answer.text
        yield replica


def test_the_url_brings_the_blob(replica: MoorageProcess, server: S3Server, client: httpx.Client) -> None:
    """Whole, or the range that the client asks for; as bytes to be saved, whoever opens it."""
    place = client.get(replica.url + _PATH).headers["location"]
    assert place.startswith(f"{server.endpoint}/")
    whole = client.get(place)
    assert (whole.status_code, whole.content) == (200, _CONTENT)
    for asked, start, stop in (
        ("bytes=10-19", 10, 20),
        ("bytes=99990-", 99_990, 100_000),
        ("bytes=-5", 99_995, 100_000),
    ):
        assert client.get(replica.url + _PATH, headers={"Range": asked}).status_code == 307
        part = client.get(place, headers={"Range": asked})
        assert (part.status_code, part.content) == (206, _CONTENT[start:stop])
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/100000"
    for answer in (whole, part):
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"] == "attachment"


def test_the_url_is_good_for_one_blob_as_it_stands(replica: MoorageProcess, client: httpx.Client) -> None:
    """Signed by SigV4 for ten minutes: another time, another type or another method does not pass."""
    place = client.get(replica.url + _PATH).headers["location"]
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in place
    assert "X-Amz-Expires=600" in place
    assert "X-Amz-SignedHeaders=host&" in place, "a client may send any header along, Range above all"
    for changed in (
        place.replace("X-Amz-Expires=600", "X-Amz-Expires=6000"),
        place.replace("octet-stream", "html"),
        place.replace("attachment", "inline"),
        place.replace("/data/", "/links/"),
    ):
        assert changed != place
        assert client.get(changed).status_code == 403
    for method in ("PUT", "DELETE"):
        assert client.request(method, place).status_code == 403
    assert client.get(place).content == _CONTENT


def test_the_url_stands_in_no_log(replica: MoorageProcess, client: httpx.Client, tmp_path: Path) -> None:
    """Whoever reads our logs must not be able to fetch blobs (rule T8)."""
    place = client.get(replica.url + _PATH).headers["location"]
    assert client.get(place).status_code == 200
    assert replica.stop() == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert (lines[-1]["path"], lines[-1]["status"]) == (_PATH, 307)
    for text in ((tmp_path / "log").read_text(), replica.errors):
        assert "X-Amz" not in text
        assert "Signature" not in text


def test_clients_may_know_the_store_by_another_name(server: S3Server, client: httpx.Client, bucket: str) -> None:
    """Redirects then name that one; the registry itself goes on using the other."""
    content = b"known elsewhere"
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with RoundRobin([server.endpoint]) as public:
        root = f"{server.url(bucket, f'r{os.urandom(4).hex()}')}&public_endpoint={public.url}"
        with MoorageProcess(root, "--drain-delay", "0s", environment=server.environment) as replica:
            answer = client.post(f"{replica.url}/v2/a/b/blobs/uploads/", params={"digest": digest}, content=content)
            assert answer.status_code == 201, answer.text
            assert public.sent.total() == 0
            place = client.get(f"{replica.url}/v2/a/b/blobs/{digest}").headers["location"]
            assert place.startswith(f"{public.url}/")
            assert client.get(place).content == content
            assert public.sent.total() == 1


def test_served_here_when_switched_off(server: S3Server, client: httpx.Client, bucket: str) -> None:
    """With --no-redirect nobody but us needs to reach the store."""
    root = server.url(bucket, f"r{os.urandom(4).hex()}")
    digest = f"sha256:{hashlib.sha256(b'served').hexdigest()}"
    with MoorageProcess(root, "--drain-delay", "0s", "--no-redirect", environment=server.environment) as replica:
        client.post(f"{replica.url}/v2/a/b/blobs/uploads/", params={"digest": digest}, content=b"served")
        answer = client.get(f"{replica.url}/v2/a/b/blobs/{digest}")
    assert (answer.status_code, answer.content) == (200, b"served")


def test_no_login_is_taken_to_the_store(server: S3Server, client: httpx.Client, bucket: str, tmp_path: Path) -> None:
    """Our client logs in at the registry, follows it to the store as nobody, and gets what it pushed. (MinIO and AWS
    refuse who shows a login beside the signature; versitygw looks away.)"""
    (tmp_path / "accounts").write_text(f"alice:{hashed('secret')}\n")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "content").write_bytes(_CONTENT)
    login = ("--htpasswd", str(tmp_path / "accounts"), "--signing-key", str(tmp_path / "key"))
    with RoundRobin([server.endpoint]) as store:
        root = f"{server.url(bucket, f'r{os.urandom(4).hex()}')}&public_endpoint={store.url}"
        with MoorageProcess(root, "--drain-delay", "0s", *login, environment=server.environment) as replica:
            host = replica.url.removeprefix("http://")
            who = {"MOORAGE_REGISTRY": host, "MOORAGE_USERNAME": "alice", "MOORAGE_PASSWORD": "secret"}
            _moorage("push", str(tmp_path / "tree"), f"{host}/a/b:1", home=tmp_path / "one", **who)
            _moorage("pull", f"{host}/a/b:1", "--unpack", str(tmp_path / "out"), home=tmp_path / "other", **who)
            assert client.get(f"{replica.url}{_PATH}").status_code == 401
        heads = [head.lower() for head in store.heads]
    assert (tmp_path / "out" / "content").read_bytes() == _CONTENT
    assert len(heads) >= 2, "the config and the layer"
    assert [head for head in heads if b"\r\nauthorization:" in head] == []


def _moorage(*words: str, home: Path, **environment: str) -> None:
    command = [str(Path(sys.executable).with_name("moorage")), *words]
    clean = {"PATH": os.environ["PATH"], "HOME": str(home), "MOORAGE_STORE": str(home / "store")}
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
