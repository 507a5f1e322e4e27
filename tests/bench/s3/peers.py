"""The registries that stand side by side, each over a bucket of its own on the same S3 server.

Law: everyone gets the same chance. No authorisation, no access log, deletes enabled, nothing else configured. With and
without redirects are two processes over one bucket.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers import Peer, start
from tests.s3.servers import S3Server

__all__ = ["KINDS", "Kind", "running"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A registry with or without redirects. ``bucket``: those with the same one hold the same content."""

    name: str
    bucket: str
    redirects: bool


KINDS = (
    Kind("moorage", "moorage", redirects=False),
    Kind("distribution", "distribution", redirects=False),
    Kind("moorage-redirects", "moorage", redirects=True),
    Kind("distribution-redirects", "distribution", redirects=True),
)
"""Moorage with its two workers, and distribution 3."""


@contextmanager
def running(kind: Kind, server: S3Server, folder: Path, *, endpoint: str | None = None) -> Iterator[Peer]:
    """Starts a registry over the bucket of its kind and stops it in the end.

    Args:
        folder: takes a folder of its own.
        endpoint: where the registry finds the server, if not at its own address.
    """
    place = folder / f"{kind.name}-{endpoint is not None}"
    place.mkdir()
    make = _moorage if kind.bucket == "moorage" else _distribution
    command = make(kind, server, endpoint or server.endpoint, place)
    with start(kind.name, place, command, environment=server.environment) as peer:
        yield peer


def _moorage(kind: Kind, _server: S3Server, endpoint: str, _place: Path) -> Callable[[int], list[str]]:
    root = f"s3://{kind.bucket}/data?endpoint={endpoint}&addressing=path"
    program = str(Path(sys.executable).with_name("moorage"))
    switch = () if kind.redirects else ("--no-redirect",)
    command = [program, "serve", "--root", root, "--no-access-log", "--drain-delay", "0", *switch]
    return lambda port: [*command, "--listen", f"127.0.0.1:{port}"]


def _distribution(kind: Kind, server: S3Server, endpoint: str, place: Path) -> Callable[[int], list[str]]:
    bucket = {
        "region": "us-east-1",
        "regionendpoint": endpoint,
        "forcepathstyle": True,
        "secure": False,
        "bucket": kind.bucket,
        "accesskey": server.environment["AWS_ACCESS_KEY_ID"],
        "secretkey": server.environment["AWS_SECRET_ACCESS_KEY"],
        "rootdirectory": "/data",
    }
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"s3": bucket, "delete": {"enabled": True}, "redirect": {"disable": not kind.redirects}},
    }
    program = shutil.which("registry")
    if program is None:
        raise FileNotFoundError("distribution's `registry` is not on PATH (.ci/run builds it)")

    def command(port: int) -> list[str]:
        # JSON is YAML, so no writer of YAML is needed.
        (place / "config.yml").write_text(json.dumps(config | {"http": {"addr": f"127.0.0.1:{port}"}}))
        return [str(program), "serve", str(place / "config.yml")]

    return command
