"""Every client at a registry that asks who they are, over TLS by a private authority: let in at once, or told no."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.interop.clients import CLIENTS, MOUNTING, Client, Done, Image, Place, image_of
from tests.interop.programs import Program, find
from tests.interop.secured import ALICE, BOB, CAROL, Secured, secured

Make = Callable[[str], Client]

_STORING_ONLY = {"crane", "oras", "containerd"}
"""Clients whose login asks nobody: what is wrong shows with the first request."""


_REFUSALS = (
    *("unauthorized", "denied", "authentication required", "authorization failed", "not permitted", "logged in"),
    *("invalid username/password", "incorrect username or password", "it refused"),  # at a login
    "403 forbidden",  # containerd 1.6 …
    "read/write on closed pipe",  # … and what it says instead when the answer was there before it had sent a manifest
    "cannot respond to request for authentication",  # oras
)
"""How clients say that they may not."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """The registry, with four workers: what one worker has told a client another one hears of."""
    with secured(tmp_path_factory.mktemp("secured")) as registry:
        yield registry


@pytest.fixture
def client_of(request: pytest.FixtureRequest, tmp_path: Path, registry: Secured) -> Make:
    """Makes a client of somebody who has never logged in anywhere."""

    def make(name: str) -> Client:
        home = tmp_path / "home"
        (home / "run").mkdir(parents=True)
        (home / "auth.json").write_text('{"auths": {}}')
        containers = request.getfixturevalue("container_store") if name in ("podman", "buildah") else ()

        def daemon(name: str) -> Callable[[], Program]:
            return lambda: request.getfixturevalue(name)

        authority = registry.authority.certificate
        return CLIENTS[name](Place(home, authority, registry.host, containers, daemon("docker"), daemon("ctr")))

    return make


@pytest.fixture
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Image:
    """An image whose layers nobody has pushed before."""
    return image_of(tmp_path / "image", request.node.nodeid)


def well(done: Done) -> None:
    """It went well."""
    assert done.returncode == 0, done


def refused(done: Done) -> None:
    """It did not, and the client says that it was refused."""
    said = (done.stdout + done.stderr).decode().lower()
    assert done.returncode != 0, done
    assert any(word in said for word in _REFUSALS), said


@pytest.mark.parametrize("name", CLIENTS)
def test_login_push_pull(name: str, client_of: Make, registry: Secured, image: Image) -> None:
    """Nobody may push or pull; alice may, from her login to her logout; a wrong password is no login."""
    client, ref = client_of(name), registry.stored.ref(f"team/{name}", "v1")
    refused(client.push_image(image, ref))
    if name != "oras":  # which tries ten times, and so meets the limit of wrong logins
        wrong = client.log_in(registry.host, f"eve-{name}", "wrong")  # each its own, for the limit's sake
        refused(client.pull_image(ref) if name in _STORING_ONLY else wrong)
    well(client.log_in(registry.host, *ALICE))
    well(client.push_image(image, ref))
    assert registry.stored.graph(f"team/{name}", "v1")
    well(client.pull_image(ref))
    client.log_out(registry.host)
    refused(client.pull_image(ref))


@pytest.mark.parametrize("name", MOUNTING)
def test_mount(name: str, client_of: Make, registry: Secured, image: Image) -> None:
    """Layers go to another repository without being sent again: the client asks for both scopes, and gets them."""
    client, ref = client_of(name), registry.stored.ref(f"team/{name}-from", "v1")
    well(client.log_in(registry.host, *ALICE))
    well(client.push_image(image, ref))
    before = registry.stored.uploads()
    well(client.copy_image(image, ref, registry.stored.ref(f"team/{name}-to", "v1")))
    assert registry.stored.uploads() <= before + 1, "some send the config again"
    there, here = (registry.stored.graph(f"team/{name}-{end}", "v1") for end in ("to", "from"))
    assert there == here


@pytest.mark.parametrize("name", CLIENTS)
def test_denied_push(name: str, client_of: Make, registry: Secured, image: Image) -> None:
    """bob, who may only read, is told no when he pushes, and nothing is left; carol may not even read."""
    client, ref = client_of(name), registry.stored.ref(f"team/{name}-denied", "v1")
    well(client.log_in(registry.host, *ALICE))
    well(client.push_image(image, ref))
    client.log_out(registry.host)
    well(client.log_in(registry.host, *BOB))
    well(client.pull_image(ref))
    refused(client.push_image(image, registry.stored.ref(f"team/{name}-denied", "v2")))
    assert registry.stored.tags(f"team/{name}-denied") == ["v1"]
    client.log_out(registry.host)
    well(client.log_in(registry.host, *CAROL))
    refused(client.pull_image(ref))


@pytest.mark.parametrize("name", CLIENTS)
def test_anonymous_pull(name: str, client_of: Make, registry: Secured, image: Image) -> None:
    """What is open to everybody is pulled without a login, and with one that gives nothing besides."""
    client, ref = client_of(name), registry.stored.ref(f"public/{name}", "v1")
    well(client.log_in(registry.host, *ALICE))
    well(client.push_image(image, ref))
    client.log_out(registry.host)
    well(client.pull_image(ref))
    refused(client.push_image(image, registry.stored.ref(f"public/{name}", "v2")))
    well(client.log_in(registry.host, *CAROL))
    well(client.pull_image(ref))
    refused(client.push_image(image, registry.stored.ref(f"public/{name}", "v2")))
    assert registry.stored.tags(f"public/{name}") == ["v1"]


def test_cosign(client_of: Make, registry: Secured, image: Image, tmp_path: Path) -> None:
    """Who may push may sign, who may pull may verify, and nobody else either."""
    crane, ref = client_of("crane"), registry.stored.ref("team/cosign", "app")
    well(crane.log_in(registry.host, *ALICE))
    well(crane.push_image(image, ref))
    digest = registry.stored.digest("team/cosign", "app")
    signed = f"{registry.host}/team/cosign@{digest}"
    cosign = replace(crane.program, command=(find("cosign"),), home=tmp_path / "cosign")
    cosign = replace(cosign, environment={**cosign.environment, "COSIGN_PASSWORD": "interop"})
    sign = ("sign", "--tlog-upload=false", "--use-signing-config=false", "--yes", "--key", "cosign.key", signed)
    verify = ("verify", "--insecure-ignore-tlog", "--key", "cosign.pub", signed)
    cosign("generate-key-pair")
    refused(cosign.attempt(*sign))
    cosign("login", "-u", BOB[0], "-p", BOB[1], registry.host)
    refused(cosign.attempt(*sign))
    assert registry.stored.referrers("team/cosign", digest) == []
    cosign("login", "-u", ALICE[0], "-p", ALICE[1], registry.host)
    cosign(*sign)
    cosign("login", "-u", BOB[0], "-p", BOB[1], registry.host)
    assert digest in cosign(*verify)
    cosign("login", "-u", CAROL[0], "-p", CAROL[1], registry.host)
    refused(cosign.attempt(*verify))
