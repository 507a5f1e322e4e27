"""Real S3 servers on loopback, each over a directory of its own: MinIO and versitygw, built as Go tools.

Law: a free port of 127.0.0.1, keys made up for the run, stopped again; a test that finds no server says which.
"""

from __future__ import annotations

import base64
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

__all__ = ["DOMAIN", "KMS_KEY", "SERVERS", "S3Server", "free_port", "running"]

_START = 60.0
_BESIDE = 16
"""Test processes side by side that never choose the same port."""

KMS_KEY = "our-key"
"""The one key of "minio with keys"."""

DOMAIN = "s3.test"
"""Below which the buckets of "minio with keys" are hosts."""


@dataclass(frozen=True, slots=True)
class S3Server:
    """A server that runs. ``environment``: the credentials, as boto3 reads them."""

    name: str
    endpoint: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    def bucket(self) -> str:
        """Makes a bucket and returns its name."""
        name = f"test-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str) -> list[str]:
        """Every key in a bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def open_multiparts(self, bucket: str) -> list[str]:
        """The keys of multipart uploads that are open, as far as the server lists them."""
        return [one["Key"] for one in self.client().list_multipart_uploads(Bucket=bucket).get("Uploads", ())]

    def client(self) -> Any:
        """A client of boto3 for it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            config=Config(s3={"addressing_style": "path"}),
        )

    def url(self, bucket: str, prefix: str = "") -> str:
        """What ``--root`` takes."""
        return f"s3://{bucket}/{prefix}?endpoint={self.endpoint}&addressing=path"


def _minio(place: Path, port: int, key: str, secret: str) -> tuple[list[str], dict[str, str]]:
    environment = {"MINIO_ROOT_USER": key, "MINIO_ROOT_PASSWORD": secret, "MINIO_CI_CD": "1", "HOME": str(place)}
    environment["MINIO_BROWSER"] = "off"  # it would listen on a port of its own choice, which may be taken
    return ["minio", "server", "--quiet", "--address", f"127.0.0.1:{port}", str(place / "data")], environment


def _versitygw(place: Path, port: int, key: str, secret: str) -> tuple[list[str], dict[str, str]]:
    (place / "data").mkdir()
    environment = {"ROOT_ACCESS_KEY": key, "ROOT_SECRET_KEY": secret}
    return ["versitygw", "--port", f"127.0.0.1:{port}", "--quiet", "posix", str(place / "data")], environment


def _minio_with_keys(place: Path, port: int, key: str, secret: str) -> tuple[list[str], dict[str, str]]:
    command, environment = _minio(place, port, key, secret)
    made_up = base64.b64encode(secrets.token_bytes(32)).decode()
    return command, {**environment, "MINIO_KMS_SECRET_KEY": f"{KMS_KEY}:{made_up}", "MINIO_DOMAIN": DOMAIN}


def _versitygw_with_sidecar(place: Path, port: int, key: str, secret: str) -> tuple[list[str], dict[str, str]]:
    command, environment = _versitygw(place, port, key, secret)
    (place / "sidecar").mkdir()
    return [*command[:-1], "--sidecar", str(place / "sidecar"), command[-1]], environment


_Start = Callable[[Path, int, str, str], tuple[list[str], dict[str, str]]]
SERVERS: dict[str, _Start] = {"minio": _minio, "versitygw": _versitygw}
"""How each is started."""

_VARIANTS: dict[str, _Start] = {"minio with keys": _minio_with_keys, "versitygw with sidecar": _versitygw_with_sidecar}
"""For tests of what only these do: a key service and names of buckets in the host; metadata beside the files."""


@contextmanager
def running(name: str, place: Path) -> Iterator[S3Server]:
    """Runs the server called ``name`` over ``place`` until the block ends."""
    port, key, secret = free_port(), f"key{secrets.token_hex(8)}", secrets.token_hex(16)
    command, environment = (SERVERS | _VARIANTS)[name](place, port, key, secret)
    program = shutil.which(command[0])
    if program is None:
        pytest.skip(f"{command[0]} is not installed (.ci/run builds it as a Go tool)")
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, *command[1:]], env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _await(process, endpoint, place / "log")
        yield S3Server(name, endpoint, {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}, process)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port for a server that wants to be told one. The kernel gives others only from 32768 on, and test processes
    that run side by side choose among different ones, so that nobody gets this one before the server has it."""
    beside = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for port in random.sample(range(10_000 + beside % _BESIDE, 30_000, _BESIDE), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no free port")


def _await(process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=5).close()  # noqa: S310 (our own server)
        except urllib.error.HTTPError:
            return  # it answers; that it does not know us is as it should be
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"no answer from {process.args!r}: {log.read_text(errors='replace')[-2000:]}")
