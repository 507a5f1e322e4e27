"""The Dockerfile, without anybody's hub: a Debian by debootstrap, pushed into Moorage; the image built on it from there
by buildah, pushed back, and run from there by podman, as locked up as it can be; and then a push and a pull through it.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.stack import DEPLOY, PASSWORD, USER
from tests.deploy.unit import allowed_calls
from tests.interop.images import sample_layout
from tests.interop.programs import Program, find
from tests.s3.servers import free_port
from tests.servers import MoorageProcess

pytestmark = pytest.mark.timeout(1800)

_CA = Path("/etc/ssl/certs/ca-certificates.crt")
_PIP = Path("/etc/pip.conf")
_START = 120.0
_UID = 10001
_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
_LIMITS: Final = (
    *("--runtime", "runc", "--network", "host"),
    # podman would raise limits, which not every machine lets it.
    *("--ulimit", f"nofile={_FILES}:{_FILES}", "--ulimit", "nproc=4096:4096"),
)
_ACCOUNTS: Final = (*("--volume", "accounts:/etc/moorage", "--env", "MOORAGE_HTPASSWD=/etc/moorage/htpasswd"),)


@dataclass(frozen=True, slots=True)
class Workshop:
    """buildah and podman over one store, and the registry that they push to and pull from."""

    buildah: Program
    podman: Program
    registry: str
    place: Path

    @property
    def image(self) -> str:
        """The name of what is built."""
        return f"{self.registry}/moorage:test"


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    """The tools, and the built image in the registry."""
    # vfs works in every file system. podman refuses a run directory of more than 50 characters: not below tmp_path.
    with tempfile.TemporaryDirectory(prefix="moorage-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        with MoorageProcess(place / "registry", workers=2) as server:
            store = ("--root", f"{place}/store", "--runroot", f"{place}/run", "--storage-driver", "vfs")
            buildah = Program((find("buildah"), *store), place / "home", patience=600)
            podman = Program((find("podman"), *store, "--cgroup-manager", "cgroupfs"), place / "home", patience=200)
            made = Workshop(buildah, podman, server.url.removeprefix("http://"), place)
            _push_base(made)
            _build(made)
            yield made


def _push_base(to: Workshop) -> None:
    """A Debian as debootstrap makes it, pushed and then gone from here."""
    root = to.place / "debian"
    command = [find("debootstrap"), "--variant=minbase", "bookworm", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    container = to.buildah.stdout("from", "scratch").decode().strip()
    to.buildah("add", container, root, "/")
    shutil.rmtree(root)
    to.buildah("commit", "--rm", container, "localhost/base")
    to.buildah(
        "push",
        "--tls-verify=false",
        "--disable-compression",
        "localhost/base",
        f"docker://{to.registry}/debian:bookworm",
    )
    to.buildah("rmi", "localhost/base")


def _build(to: Workshop) -> None:
    """The image, on that base, by the Dockerfile's own words; pushed and then gone from here."""
    secrets = [f"--secret=id={name},src={path}" for name, path in (("pip", _PIP), ("ca", _CA)) if path.exists()]
    to.buildah(
        *("build", "--format", "docker", "--isolation", "chroot", "--network", "host", "--tls-verify=false"),
        *("--build-arg", f"BASE={to.registry}/debian:bookworm", *secrets),
        *("--file", DEPLOY / "Dockerfile", "--tag", to.image, DEPLOY.parent),
    )
    to.buildah("push", "--tls-verify=false", to.image, f"docker://{to.image}")
    to.buildah("rmi", "--all", "--force")


@contextmanager
def _container(of: Workshop) -> Iterator[str]:
    """The image, run under all that compose and the unit take away; yields where it listens."""
    address = f"127.0.0.1:{free_port()}"
    (of.place / "seccomp.json").write_text(json.dumps(_profile()))
    of.podman(
        *("run", "--detach", "--name", "moorage", "--pull", "always", "--tls-verify=false", *_LIMITS),
        *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "all"),  # noqa: S108  # in the container
        *("--security-opt", "no-new-privileges", "--security-opt", f"seccomp={of.place}/seccomp.json"),
        *("--health-interval", "disable"),  # podman would leave it to systemd's timers, and there is no systemd
        *_ACCOUNTS,
        *("--env", f"MOORAGE_LISTEN={address}", of.image),
    )
    try:
        yield address
    finally:
        of.podman("rm", "--force", "--time", "0", "--volumes", "moorage")


def _profile() -> dict[str, object]:
    """The unit's filter of system calls, as runc takes it; and without two that other sandboxes deny, too."""
    names = [name for name in allowed_calls() if name not in {"setpriority", "sched_setaffinity"}]
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}


def test_the_image_runs_and_serves(workshop: Workshop, tmp_path: Path) -> None:
    """It is healthy, nobody in it is root or may become it, it writes nothing but its data; whoever got an account by
    its own command pushes and pulls, others do not."""
    digests = sample_layout(tmp_path / "layout", seed="image")
    skopeo = Program((find("skopeo"), "--insecure-policy"), tmp_path / "skopeo")
    workshop.podman(
        *("run", "--rm", "--interactive", "--pull", "always", "--tls-verify=false", *_LIMITS, "--no-healthcheck"),
        *(*_ACCOUNTS, workshop.image, "user", "add", USER, "--password-stdin"),
        stdin=PASSWORD.encode(),
    )
    with _container(workshop) as address:
        _await_health(workshop)
        there = f"docker://{address}/deploy/app:latest"
        push = ("copy", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:app", there)
        assert skopeo.attempt(*push).returncode != 0
        skopeo(*push, f"--dest-creds={USER}:{PASSWORD}")
        pull = ("copy", "--src-tls-verify=false", f"--src-creds={USER}:{PASSWORD}", "--preserve-digests")
        skopeo(*pull, there, f"oci:{tmp_path}/out:app")
        pulled = json.loads((tmp_path / "out" / "index.json").read_text())["manifests"]
        assert [one["digest"] for one in pulled] == [digests["app"]]
        for status in _processes(workshop):
            assert status["Uid"].split() == [str(_UID)] * 4
            assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert workshop.podman.attempt("exec", "moorage", "touch", "/opt/moorage/x").returncode != 0
        assert _health_at(workshop, address) == 0
        assert _health_at(workshop, f"127.0.0.1:{free_port()}") == 1
        workshop.podman("stop", "--time", "50", "moorage")
        assert workshop.podman.stdout("inspect", "moorage", "--format", "{{.State.ExitCode}}") == b"0\n"


def test_the_image_says_what_it_is(workshop: Workshop) -> None:
    """User, health check, volume and signal stand in its configuration; neither pip nor a compiler is in it."""
    workshop.podman("pull", "--tls-verify=false", workshop.image)
    found = json.loads(workshop.podman.stdout("image", "inspect", workshop.image))[0]
    config = found["Config"]
    assert config["User"] == f"{_UID}:{_UID}"
    assert config["Entrypoint"] == ["moorage"]
    assert config["Volumes"] == {"/var/lib/moorage": {}}
    assert config["StopSignal"] == "SIGTERM"
    assert found["Healthcheck"]["Test"] == ["CMD", "healthcheck"]
    look = ["run", "--rm", *_LIMITS, "--entrypoint", "/bin/sh", "--no-healthcheck", workshop.image]
    names = "pip pip3 gcc cc make"
    assert workshop.podman(*look, "-c", f"for n in {names}; do command -v $n; done; true") == ""


def _await_health(of: Workshop) -> None:
    deadline = time.monotonic() + _START
    while of.podman.attempt("healthcheck", "run", "moorage").returncode:
        assert time.monotonic() < deadline, of.podman.attempt("logs", "moorage")
        time.sleep(0.5)


def _health_at(of: Workshop, address: str) -> int:
    """What the health check says of a registry that should listen there."""
    asked = of.podman.attempt("exec", "--env", f"MOORAGE_LISTEN={address}", "moorage", "healthcheck")
    return asked.returncode


def _processes(of: Workshop) -> list[dict[str, str]]:
    """``/proc/PID/status`` of everything that runs in the container."""
    first = int(of.podman.stdout("inspect", "moorage", "--format", "{{.State.Pid}}"))
    workers = map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in (first, *workers)]
    assert len(texts) == 3  # the parent and two workers
    return [{name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
            for text in texts]  # fmt: skip
