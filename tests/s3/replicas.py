"""Two ``moorage serve`` over one bucket, behind a balancer that gives every request to the other one."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.roundrobin import RoundRobin
from tests.s3.servers import S3Server
from tests.servers import MoorageProcess

__all__ = ["SETUPS", "Replicas", "Setup", "serving_twice"]


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
    bucket: str


@contextmanager
def serving_twice(
    server: S3Server, *arguments: str, redirect: bool, tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None
) -> Iterator[Replicas]:
    """Runs two replicas over a new bucket until the block ends.

    Args:
        arguments: further ones of ``serve``.
        tls: how the balancer speaks TLS to clients and to the replicas.
    """
    bucket = server.bucket()
    root = server.url(bucket, "registry")
    words = ("--drain-delay", "0s", "--redirect" if redirect else "--no-redirect", *arguments)
    with (
        MoorageProcess(root, *words, environment=server.environment) as one,
        MoorageProcess(root, *words, environment=server.environment) as other,
        RoundRobin([one.url, other.url], tls=tls) as balancer,
    ):
        yield Replicas(balancer.url, root, bucket)
        for replica in (one, other):
            assert replica.process.poll() is None, f"a replica did not live to the end: {replica.errors}"
