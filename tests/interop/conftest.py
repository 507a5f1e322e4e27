"""A real ``moorage serve`` over a directory and over S3, sample images, and the foreign programs of this machine."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.images import sample_layout
from tests.interop.peers import PEERS, peer
from tests.interop.programs import Program, daemon, find
from tests.interop.stored import Stored
from tests.s3.replicas import serving_twice
from tests.s3.servers import running
from tests.servers import MoorageProcess


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is ``interop``; foreign daemons and container stores need root."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.interop)
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))


_SETUPS = [
    pytest.param(1, id="1 worker"),
    pytest.param(4, id="4 workers"),
    pytest.param("minio", id="two replicas over minio, redirects"),
]


@pytest.fixture(scope="session", params=_SETUPS)
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """Moorage, as people run it, and what it holds: over a directory, and over a bucket to which clients are sent."""
    place = tmp_path_factory.mktemp("moorage")
    with over_bucket(place) if request.param == "minio" else over_directory(place / "root", request.param) as stored:
        yield stored
        stored.close()


@contextmanager
def over_directory(root: Path, workers: int) -> Iterator[Stored]:
    """One server with so many workers."""
    with MoorageProcess(root, workers=workers) as server:
        yield Stored(server.url, lambda: sum(1 for _ in (root / "data").glob("*/*")))
        assert server.process.poll() is None, f"the server did not live to the end: {server.errors}"


@contextmanager
def over_bucket(place: Path) -> Iterator[Stored]:
    """Two servers that take turns."""
    with running("minio", place) as server, serving_twice(server, redirect=True) as replicas:
        yield Stored(replicas.url, lambda: len([key for key in server.keys(replicas.bucket) if "/data/" in key]))


@pytest.fixture(scope="module", params=PEERS)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """A registry that is not Moorage."""
    place = tmp_path_factory.mktemp("peer") / "place"
    with peer(request.param, place) as url:
        stored = Stored(url)
        yield stored
        stored.close()


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OCI layout of the sample images."""
    directory = tmp_path_factory.mktemp("samples") / "layout"
    sample_layout(directory)
    return directory


@pytest.fixture(scope="session")
def digests(layout: Path) -> dict[str, str]:
    """Tag → digest of the sample images, as their layout says."""
    named = json.loads((layout / "index.json").read_text())["manifests"]
    return {entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"] for entry in named}


@pytest.fixture
def unseen(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Sample images whose layers no other test has pushed: nothing can be reused, mounted or found in a cache."""
    sample_layout(tmp_path / "unseen", seed=request.node.nodeid)
    return tmp_path / "unseen"


@pytest.fixture
def moorage(tmp_path: Path) -> Program:
    """Our client, with a store of its own."""
    program = Path(sys.executable).with_name("moorage")
    return Program((str(program),), tmp_path / "home", {"MOORAGE_STORE": str(tmp_path / "store")})


@pytest.fixture
def skopeo(tmp_path: Path) -> Program:
    """skopeo."""
    return Program((find("skopeo"),), tmp_path / "skopeo")


@pytest.fixture
def crane(tmp_path: Path) -> Program:
    """crane, of go-containerregistry."""
    return Program((find("crane"),), tmp_path / "crane")


@pytest.fixture
def regctl(tmp_path: Path, registry: Stored) -> Program:
    """regctl, of regclient, told that the registry speaks plain HTTP."""
    program = Program((find("regctl"),), tmp_path / "regctl")
    program("registry", "set", "--tls", "disabled", registry.host)
    return program


@pytest.fixture
def cosign(tmp_path: Path) -> Program:
    """cosign, with a password for its keys."""
    return Program((find("cosign"),), tmp_path / "cosign", {"COSIGN_PASSWORD": "interop"})


@pytest.fixture
def container_store() -> Iterator[tuple[str, ...]]:
    """The arguments that give podman and buildah a store of their own."""
    # vfs works in every file system. podman refuses a run directory of more than 50 characters: not below tmp_path.
    with tempfile.TemporaryDirectory(prefix="moorage-", ignore_cleanup_errors=True) as place:
        yield "--root", f"{place}/store", "--runroot", f"{place}/run", "--storage-driver", "vfs"


@pytest.fixture
def podman(tmp_path: Path, container_store: tuple[str, ...]) -> Program:
    """podman over a store of its own."""
    return Program((find("podman"), *container_store), tmp_path / "podman")


@pytest.fixture
def buildah(tmp_path: Path, container_store: tuple[str, ...]) -> Program:
    """buildah over a store of its own."""
    return Program((find("buildah"), *container_store), tmp_path / "buildah")


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The docker client with a daemon of its own; the daemon trusts loopback registries over plain HTTP."""
    place = tmp_path_factory.mktemp("docker")
    host = f"unix://{place}/docker.sock"
    client = Program((find("docker", "/usr/bin/docker"),), place / "home", {"DOCKER_HOST": host})
    dockerd: list[str | Path] = [find("dockerd"), "--host", host, "--data-root", place / "data"]
    dockerd += ["--exec-root", place / "exec", "--pidfile", place / "pid", "--storage-driver", "vfs"]
    dockerd += ["--bridge", "none", "--iptables=false", "--ip6tables=false", "--insecure-registry", "127.0.0.0/8"]
    with daemon(dockerd, place / "log", lambda: client.attempt("info").returncode == 0):
        yield client


@pytest.fixture(scope="session")
def ctr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """ctr with a containerd of its own."""
    place = tmp_path_factory.mktemp("containerd")
    client = Program((find("ctr"), "--address", f"{place}/sock"), place / "home")
    containerd: list[str | Path] = [find("containerd"), "--address", place / "sock"]
    containerd += ["--root", place / "root", "--state", place / "state"]
    with daemon(containerd, place / "log", lambda: client.attempt("version").returncode == 0):
        yield client
