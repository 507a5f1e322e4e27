"""``moorage copy`` and ``push`` where it is hard: signatures, other registries, connections that break."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.images import HOST, Layout, tar_of
from tests.interop.programs import Program
from tests.interop.stored import Stored
from tests.interop.test_cosign import LOCAL, OFFLINE


@pytest.fixture
def keys(cosign: Program) -> Program:
    """cosign, with a pair of keys."""
    cosign("generate-key-pair")
    return cosign


def signed(cosign: Program, moorage: Program, layout: Path, registry: Stored, repository: str, *how: str) -> str:
    """An image by digest, signed with ``cosign.key``."""
    ref = registry.ref(repository, "app")
    moorage("push", f"oci:{layout}:app", ref)
    pinned = f"{registry.host}/{repository}@{registry.digest(repository, 'app')}"
    cosign("sign", *OFFLINE, *how, "--key", "cosign.key", pinned)
    return pinned


@pytest.mark.parametrize(
    "how",
    [
        pytest.param((), id="referrers"),
        pytest.param(("--new-bundle-format=false",), id="tags"),
    ],
)
def test_a_signed_image_verifies_where_it_was_copied(
    keys: Program, moorage: Program, registry: Stored, other: Stored, layout: Path, how: tuple[str, ...]
) -> None:
    """To a registry of another make, which may not know referrers, and back, through an archive: it still verifies."""
    source = signed(keys, moorage, layout, registry, f"signed/{len(how)}", *how)
    digest, archive = source.partition("@")[2], moorage.home / "signed.tar"
    hops = [
        f"{other.host}/signed/there{len(how)}:app",
        f"oci-archive:{archive}:app",
        f"{registry.host}/signed/back{len(how)}:app",
    ]
    for here, there in zip([source, *hops], hops, strict=False):
        moorage("copy", "--referrers", "--all-platforms", here, there)
    for host, name in ((other.host, "there"), (registry.host, "back")):
        copied = f"{host}/signed/{name}{len(how)}@{digest}"
        keys("verify", *LOCAL, "--key", "cosign.pub", copied)
    moorage("copy", "--all-platforms", source, f"{registry.host}/signed/bare{len(how)}:app")
    bare = keys.attempt("verify", *LOCAL, "--key", "cosign.pub", f"{registry.host}/signed/bare{len(how)}@{digest}")
    assert bare.returncode != 0, "without --referrers there is nothing to verify"


@contextmanager
def breaking(target: str, cuts: list[int]) -> Iterator[str]:
    """A proxy before ``HOST:PORT`` that breaks connections when they have carried so many bytes; one cut each."""
    host, _, port = target.partition(":")
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, sink: socket.socket, *, is_upload: bool) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                carried += len(data)
                if is_upload and cuts and carried >= cuts[0]:
                    cuts.pop(0)
                    break
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def join(near: socket.socket) -> None:
        with near, socket.create_connection((host, int(port))) as far:
            down = threading.Thread(target=carry, args=(far, near), kwargs={"is_upload": False}, daemon=True)
            down.start()
            carry(near, far, is_upload=True)
            down.join()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=join, args=(near,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An image with a layer of 24 MB."""
    made = Layout(tmp_path / "large")
    made.name("v1", made.image(tar_of({"noise": os.urandom(24_000_000)}), architecture=HOST))
    made.finish()
    return tmp_path / "large"


def test_a_push_survives_broken_connections(moorage: Program, other: Stored, large: Path) -> None:
    """Whether the registry lets go on where it broke, or wants all of it again."""
    cuts = [5_000_000, 9_000_000, 2_000_000]
    with breaking(other.host, cuts) as host:
        moorage("push", large, f"{host}/broken/push:v1")
    assert cuts == [], "the test cut nothing"
    assert other.graph("broken/push", "v1")


def test_moorage_goes_on_where_it_broke(moorage: Program, registry: Stored, large: Path) -> None:
    """Our own registry takes the rest only."""
    cuts = [9_000_000, 9_000_000]
    with breaking(registry.host, cuts) as host:
        told = moorage.stdout("push", "--json", large, f"{host}/broken/resumed:v1").decode()
    assert '"Resumed"' in told
    assert registry.graph("broken/resumed", "v1")


def test_a_push_into_a_neighbour_is_mounted(moorage: Program, other: Stored, layout: Path) -> None:
    """What was pulled from a repository of the registry is mounted from there."""
    base, copy = other.ref("mount/base", "v1"), other.ref("mount/copy", "v1")
    moorage("push", f"oci:{layout}:app", base)
    moorage("pull", "--no-unpack", base)
    told = moorage.stdout("push", "--json", base, copy).decode()
    assert '"mounted"' in told
    assert '"BlobStarted"' not in told
    assert other.graph("mount/copy", "v1")
