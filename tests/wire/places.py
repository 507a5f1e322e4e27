"""Real servers for the wire tests: over S3, and asking for a login over TLS, as people run them.

Law: whatever stands in front or below, a test of the API holds there as in this process; and no place remembers by
itself what the next request needs, so ``local``, opened here over the same store, is just one more replica.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from tests.deploy.stack import PASSWORD, USER, as_shipped, stack
from tests.interop.secured import Authority
from tests.s3.replicas import SETUPS, Setup, serving_twice
from tests.s3.servers import running
from tests.servers import MoorageProcess
from tests.wire.asking import Tokens
from tests.wire.following import Following

__all__ = ["OF_THE_API", "PLACES", "Kind", "Place"]

OF_THE_API: Final = frozenset({"clients", "deletes", "lists", "pull", "push_blobs", "push_manifests", "ranges"})


@dataclass(frozen=True, slots=True)
class Place:
    """A registry that runs. ``root``: its store, as ``--root`` takes it, to be opened with ``environment``.

    Attributes:
        redirects_to: the URL of the S3 server to which clients are sent for blobs.
        trust: what clients need to believe its certificate; None: it speaks plain HTTP.
        tokens: how clients log in.
    """

    url: str
    root: str
    environment: Mapping[str, str] = field(default_factory=dict)
    redirects_to: str | None = None
    trust: ssl.SSLContext | None = None
    tokens: Tokens | None = None

    def transport(self) -> httpx.AsyncBaseTransport:
        """How clients reach it: every request on a connection of its own, which any worker may take. A proxy closes one
        on which the registry refused a body before the proxy had read it, and a client may notice too late."""
        each_for_itself = httpx.Limits(max_keepalive_connections=0)
        reached = httpx.AsyncHTTPTransport(verify=self.trust or False, limits=each_for_itself)
        return Following(reached, self.redirects_to) if self.redirects_to else reached


@dataclass(frozen=True, slots=True)
class Kind:
    """How a place is run: ``starts`` is given the operator's files (``tests.wire.locked``) and a folder of its own.

    Attributes:
        redirects: whether clients are sent to the store for blobs.
        asks: whether it asks for a login, over TLS.
        daily: the modules that CI runs there.
    """

    starts: Callable[[Path, Path], AbstractContextManager[Place]]
    redirects: bool = False
    asks: bool = False
    daily: frozenset[str] = OF_THE_API


@contextmanager
def _four_workers(files: Path, folder: Path) -> Iterator[Place]:
    authority = Authority.at(folder)
    root = folder / "root"
    with MoorageProcess(root, *_asking(files), *_tls(authority, folder), workers=4) as server:
        yield Place(server.url, str(root), trust=authority.trust(), tokens=Tokens("admin", asks=False))
        assert server.process.poll() is None, f"the server did not live to the end: {server.errors}"


@contextmanager
def _replicas_that_ask(files: Path, folder: Path) -> Iterator[Place]:
    authority = Authority.at(folder)
    words, trust = (*_asking(files), *_tls(authority, folder)), authority.trust()
    front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.ca.issue_cert("127.0.0.1").configure_cert(front)
    with (
        running("minio", folder) as server,
        serving_twice(server, *words, redirect=True, tls=(front, trust)) as replicas,
    ):
        tokens = Tokens("admin", asks=False)
        yield Place(replicas.url, replicas.root, server.environment, server.endpoint, trust, tokens)


@contextmanager
def _behind_nginx(_files: Path, folder: Path) -> Iterator[Place]:
    given: dict[str, str] = {}

    def noted(environment: dict[str, str]) -> dict[str, str]:
        given.update(environment)
        return as_shipped(environment)

    with stack(folder, noted) as shipped:
        secrets = {name: value for name, value in given.items() if name.startswith("AWS_")}
        tokens = Tokens(USER, PASSWORD, asks=False)
        yield Place(shipped.url, given["MOORAGE_ROOT"], secrets, trust=shipped.trust(), tokens=tokens)


def _asking(files: Path) -> tuple[str, ...]:
    return "--auth", str(files / "policy.yaml"), "--signing-key", str(files / "signing.key")


def _tls(authority: Authority, folder: Path) -> tuple[str, ...]:
    chain, key = authority.vouch(folder)
    return "--tls-cert", chain, "--tls-key", key


def _over(setup: Setup) -> Callable[[Path, Path], AbstractContextManager[Place]]:
    @contextmanager
    def starts(_files: Path, folder: Path) -> Iterator[Place]:
        with running(setup.server, folder) as server, serving_twice(server, redirect=setup.redirect) as replicas:
            store = server.endpoint if setup.redirect else None
            yield Place(replicas.url, replicas.root, server.environment, store)

    return starts


_DAILY: Final = {
    "minio redirects": OF_THE_API,
    "versitygw serves": frozenset({"clients", "pull", "push_blobs", "ranges"}),
}
PLACES: Final = {
    "login, 4 workers": Kind(_four_workers, asks=True),
    "login, two replicas, minio redirects": Kind(_replicas_that_ask, redirects=True, asks=True),
    "login, behind nginx": Kind(_behind_nginx, asks=True),
    **{
        str(setup): Kind(_over(setup), redirects=setup.redirect, daily=_DAILY.get(str(setup), frozenset()))
        for setup in SETUPS
    },
}
"""Both S3 servers and both ways, and the three ways in which people put a login before them."""
