"""The clients side by side, each as people use it, with a store of its own that is empty before every run.

Law: everyone gets the same chance: a program on ``PATH`` (ours: see ``installed``). A daemon is started before the
clock and told nothing but where its data is and that the registry speaks plain HTTP; checks that a client does by
default it does here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["CLIENTS", "Client", "Session", "available"]

_READY = 30.0


@dataclass(frozen=True, slots=True)
class Session:
    """A client with an empty store. ``daemon``: the process that works for it, if any."""

    place: Path
    daemon: int | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Client:
    """A program in one of its uses. ``command``: what to run for a registry, a repository and the image's layout."""

    name: str
    use: str
    programs: tuple[str, ...]
    command: Callable[[Session, str, Path], list[str]]
    daemon: Callable[[Path], tuple[list[str], list[str]]] | None = None

    @contextmanager
    def session(self, place: Path, host: str) -> Iterator[Session]:
        """A new store at ``place``, gone when the block ends."""
        place.mkdir()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(place / "home"),
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(place),
        }
        (place / "home" / ".regctl").mkdir(parents=True)
        (place / "home" / ".regctl" / "config.json").write_text(json.dumps({"hosts": {host: {"tls": "disabled"}}}))
        try:
            if self.daemon is None:
                yield Session(place, None, environment)
            else:
                with _daemon(*self.daemon(place), place / "daemon.log") as pid:
                    yield Session(place, pid, environment)
        finally:
            subprocess.run(["rm", "-rf", "--one-file-system", place], check=False)


@contextmanager
def _daemon(command: list[str], probe: list[str], log: Path) -> Iterator[int]:
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _READY
        while subprocess.run(probe, capture_output=True, check=False).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


def _moorage(*options: str) -> Callable[[Session, str, Path], list[str]]:
    def command(session: Session, ref: str, _: Path) -> list[str]:
        place = [word.replace("PLACE", str(session.place)) for word in options]
        return ["moorage", "pull", ref, "--store", f"{session.place}/store", *place]

    return command


def _docker(session: Session, ref: str, _: Path) -> list[str]:
    return ["docker", "--host", f"unix://{session.place}/docker.sock", "pull", "--quiet", ref]


def _dockerd(place: Path) -> tuple[list[str], list[str]]:
    host = f"unix://{place}/docker.sock"
    command = ["dockerd", "--host", host, "--data-root", f"{place}/data", "--exec-root", f"{place}/exec"]
    command += ["--pidfile", f"{place}/pid", "--bridge", "none", "--iptables=false", "--ip6tables=false"]
    return [*command, "--insecure-registry", "127.0.0.0/8"], ["docker", "--host", host, "info"]


def _podman(session: Session, ref: str, _: Path) -> list[str]:
    stores = ["--root", f"{session.place}/store", "--runroot", f"{session.place}/run"]
    return ["podman", *stores, "pull", "--quiet", "--tls-verify=false", ref]


def _skopeo_umoci(session: Session, ref: str, _: Path) -> list[str]:
    copy = f"skopeo copy --quiet --src-tls-verify=false docker://{ref} oci:{session.place}/layout:latest"
    return ["sh", "-c", f"{copy} && umoci unpack --image {session.place}/layout:latest {session.place}/bundle"]


def _skopeo(session: Session, ref: str, _: Path) -> list[str]:
    return [
        "skopeo",
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        f"docker://{ref}",
        f"oci:{session.place}/layout:latest",
    ]


def _ctr(session: Session, ref: str, _: Path) -> list[str]:
    return ["ctr", "--address", f"{session.place}/sock", "image", "pull", "--plain-http", ref]


def _containerd(place: Path) -> tuple[list[str], list[str]]:
    config = place / "config.toml"
    config.write_text('version = 3\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    command = ["containerd", "--config", str(config), "--address", f"{place}/sock"]
    command += ["--root", f"{place}/root", "--state", f"{place}/state"]
    return command, ["ctr", "--address", f"{place}/sock", "version"]


def _crane(session: Session, ref: str, _: Path) -> list[str]:
    return ["crane", "pull", "--insecure", "--format=oci", ref, f"{session.place}/layout"]


def _regctl(session: Session, ref: str, _: Path) -> list[str]:
    return ["regctl", "image", "copy", ref, f"ocidir://{session.place}/layout:latest"]


def _moorage_push(_: Session, ref: str, layout: Path) -> list[str]:
    return ["moorage", "push", f"oci:{layout}:latest", ref]


def _crane_push(_: Session, ref: str, layout: Path) -> list[str]:
    return ["crane", "push", "--insecure", str(layout), ref]


def _skopeo_push(_: Session, ref: str, layout: Path) -> list[str]:
    return ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://{ref}"]


def _regctl_push(_: Session, ref: str, layout: Path) -> list[str]:
    return ["regctl", "image", "copy", f"ocidir://{layout}:latest", ref]


CLIENTS: Sequence[Client] = (
    Client("moorage", "unpack", ("moorage",), _moorage()),
    Client("moorage --unpack", "unpack", ("moorage",), _moorage("--unpack", "PLACE/tree")),
    Client("docker", "unpack", ("docker", "dockerd"), _docker, _dockerd),
    Client("podman", "unpack", ("podman",), _podman),
    Client("containerd", "unpack", ("containerd", "ctr"), _ctr, _containerd),
    Client("skopeo+umoci", "unpack", ("skopeo", "umoci"), _skopeo_umoci),
    Client("moorage", "download", ("moorage",), _moorage("--no-unpack")),
    Client("crane", "download", ("crane",), _crane),
    Client("skopeo", "download", ("skopeo",), _skopeo),
    Client("regctl", "download", ("regctl",), _regctl),
    Client("moorage", "push", ("moorage",), _moorage_push),
    Client("crane", "push", ("crane",), _crane_push),
    Client("skopeo", "push", ("skopeo",), _skopeo_push),
    Client("regctl", "push", ("regctl",), _regctl_push),
)  # fmt: skip
"""Uses: ``unpack`` ends with files to run, ``download`` with a layout on disk, ``push`` with a registry that has it."""


def available(use: str) -> list[Client]:
    """The clients of a use whose programs are on PATH."""
    return [client for client in CLIENTS if client.use == use and all(map(shutil.which, client.programs))]
