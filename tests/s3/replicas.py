"""Two ``moorage serve`` over one bucket, behind a balancer that gives every request to the other one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.roundrobin import RoundRobin
from tests.s3.servers import S3Server
from tests.servers import MoorageProcess

__all__ = ["SETUPS", "Replicas", "Setup", "serving_twice"]

_AT_ONCE = 1000
"""Most keys that S3 deletes in one request."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Over which S3 server, and whether clients are sent to it for blobs."""

    server: str
    redirect: bool

    def __str__(self) -> str:
        return f"{self.server} {'redirects' if self.redirect else 'serves'}"


SETUPS = [Setup(server, redirect) for server in ("minio", "versitygw") for redirect in (True, False)]


@dataclass(frozen=True, slots=True)
class Replicas:
    """What runs. ``url``: of the balancer; ``root``: of the registry, as ``--root`` takes it."""

    url: str
    root: str
    server: S3Server
    bucket: str
    balancer: RoundRobin

    def empty(self) -> None:
        """Takes everything out of the bucket but what makes it a registry."""
        client = self.server.client()
        keys = [{"Key": key} for key in self.server.keys(self.bucket) if not key.endswith("/format")]
        for start in range(0, len(keys), _AT_ONCE):
            wanted = {"Objects": keys[start : start + _AT_ONCE], "Quiet": True}
            client.delete_objects(Bucket=self.bucket, Delete=wanted)


@contextmanager
def serving_twice(server: S3Server, *arguments: str, redirect: bool) -> Iterator[Replicas]:
    """Runs two replicas over a new bucket until the block ends. ``arguments``: further ones of ``serve``."""
    bucket = server.bucket()
    root = server.url(bucket, "registry")
    words = ("--drain-delay", "0s", "--redirect" if redirect else "--no-redirect", *arguments)
    with (
        MoorageProcess(root, *words, environment=server.environment) as one,
        MoorageProcess(root, *words, environment=server.environment) as other,
        RoundRobin([one.url, other.url]) as balancer,
    ):
        yield Replicas(balancer.url, root, server, bucket, balancer)
        for replica in (one, other):
            assert replica.process.poll() is None, f"a replica did not live to the end: {replica.errors}"
