"""Each client as a table of its commands: log in, push an image, pull it, copy it to another repository.

Law: every client verifies the server's certificate against the one authority it is given (but docker, whose daemon
takes whatever a loopback address shows); each has a home of its own, so that nothing is logged in before it logs in.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.interop.images import Layout, tar_of
from tests.interop.programs import Program, find

__all__ = ["CLIENTS", "MOUNTING", "Client", "Done", "Image", "Place", "image_of"]

Done = subprocess.CompletedProcess[bytes]
Steps = Sequence[Sequence[str]]

LOCAL = "localhost/interop:1"
"""What an image is called in the archive that daemons load."""

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Image:
    """One image, as an OCI layout (tag ``app``) and as an archive of docker, whose tag is ``LOCAL``."""

    layout: Path
    archive: Path


@dataclass
class Client:
    """A client of one user.

    ``push``, ``pull``, ``copy``: commands with ``{ref}``, ``{source}``, ``{layout}``, ``{archive}``, ``{out}`` and
    ``{as}``, which is replaced by ``how`` when somebody has logged in. All but the last only prepare and must succeed.
    """

    program: Program
    push: Steps
    pull: Steps
    copy: Steps = ()
    login: Sequence[str] = ()
    logout: Sequence[str] = ()
    how: Sequence[str] = ()
    user: str = ""
    password: str = ""
    calls: int = field(default=0)

    def log_in(self, host: str, user: str, password: str) -> Done:
        """By its own command, which asks the registry; ctr has none and is told with each call."""
        if self.login:
            done = self._run(self.login, password.encode(), host=host, user=user)
            if done.returncode:
                return done
        self.user, self.password = user, password
        return subprocess.CompletedProcess([], 0, b"", b"")

    def log_out(self, host: str) -> None:
        """By its own command."""
        if self.logout:
            done = self._run(self.logout, host=host)
            assert done.returncode == 0, done
        self.user = self.password = ""

    def push_image(self, image: Image, ref: str) -> Done:
        """Pushes an image from this machine."""
        return self._steps(self.push, ref=ref, layout=str(image.layout), archive=str(image.archive))

    def pull_image(self, ref: str) -> Done:
        """Pulls an image, all of it."""
        self.calls += 1
        return self._steps(self.pull, ref=ref, out=str(self.program.home / f"out{self.calls}"))

    def copy_image(self, image: Image, source: str, ref: str) -> Done:
        """Brings what it has pushed as ``source`` into another repository of the same registry."""
        layout, archive = str(image.layout), str(image.archive)
        return self._steps(self.copy, ref=ref, source=source, layout=layout, archive=archive)

    def _steps(self, steps: Steps, **values: str) -> Done:
        *before, last = steps
        for step in before:
            done = self._run(step, **values)
            assert done.returncode == 0, done
        return self._run(last, **values)

    def _run(self, step: Sequence[str], stdin: bytes | None = None, /, **values: str) -> Done:
        arguments: list[str] = []
        for word in step:
            whole = self.how if word == "{as}" and self.user else () if word == "{as}" else (word,)
            arguments += [part.format(**{"user": self.user, "password": self.password} | values) for part in whole]
        return self.program.attempt(*arguments, stdin=stdin)


def image_of(place: Path, seed: str, *, size: int = 3000) -> Image:
    """Makes an image whose layers, of ``size`` bytes each, nobody has seen before."""
    noise = random.Random(seed)
    layout = Layout(place / "layout")
    layers = [tar_of({name: noise.randbytes(size)}) for name in ("one", "two")]
    layout.name("app", layout.image(*layers))
    layout.finish()
    archive = place / "archive.tar"
    Program((find("skopeo"),), place / "skopeo")(
        "copy", f"oci:{place / 'layout'}:app", f"docker-archive:{archive}:{LOCAL}"
    )
    return Image(place / "layout", archive)


@dataclass(frozen=True)
class Place:
    """Where a client lives: its home, the authority it trusts, and the daemons and stores that some need."""

    home: Path
    authority: Path
    host: str
    containers: tuple[str, ...]
    docker: Callable[[], Program]
    ctr: Callable[[], Program]

    def program(self, *command: str, **environment: str) -> Program:
        """A program with this home that trusts the authority as Go programs do."""
        known = {
            "SSL_CERT_FILE": str(self.authority),
            "REGISTRY_AUTH_FILE": str(self.home / "auth.json"),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "TMPDIR": str(self.home),
        }
        return Program(command, self.home, known | environment)

    @property
    def certificates(self) -> str:
        """A directory of certificates, as docker, podman and containerd know them."""
        directory = self.home / "certificates"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "ca.crt").write_bytes(self.authority.read_bytes())
        return str(directory)


_AS_USER = ("-u", "{user}", "--password-stdin")


def _docker(place: Place) -> Client:
    ours = place.docker()
    config = place.home / ".docker" / "config.json"  # into an empty file docker puts whatever helper is installed
    config.parent.mkdir()
    config.write_text('{"auths": {"other.example": {"auth": "eDp5"}}}')
    program = replace(ours, home=place.home, environment={**ours.environment})
    load = (("load", "--input", "{archive}"), ("tag", LOCAL, "{ref}"))
    return Client(
        program,
        push=(*load, ("push", "{ref}")),
        pull=(("pull", "{ref}"),),
        copy=(*load, ("push", "{ref}")),
        login=("login", *_AS_USER, "{host}"),
        logout=("logout", "{host}"),
    )


def _podman(place: Place) -> Client:
    certificates = ("--cert-dir", place.certificates)
    push = (("load", "--input", "{archive}"), ("push", *certificates, LOCAL, "{ref}"))
    return Client(
        place.program(find("podman"), *place.containers),
        push=push, copy=push,
        pull=(("pull", *certificates, "{ref}"),),
        login=("login", *_AS_USER, *certificates, "{host}"), logout=("logout", "{host}"),
    )  # fmt: skip


def _buildah(place: Place) -> Client:
    certificates = ("--cert-dir", place.certificates)
    push = (("pull", "docker-archive:{archive}"), ("push", *certificates, LOCAL, "docker://{ref}"))
    return Client(
        place.program(find("buildah"), *place.containers),
        push=push, copy=push,
        pull=(("pull", "--policy", "always", *certificates, "{ref}"),),
        login=("login", *_AS_USER, *certificates, "{host}"), logout=("logout", "{host}"),
    )  # fmt: skip


def _skopeo(place: Place) -> Client:
    to, of = ("--dest-cert-dir", place.certificates), ("--src-cert-dir", place.certificates)
    return Client(
        place.program(find("skopeo")),
        push=(("copy", *to, "oci:{layout}:app", "docker://{ref}"),),
        pull=(("copy", *of, "docker://{ref}", "oci:{out}:app"),),
        copy=(("copy", *of, *to, "docker://{source}", "docker://{ref}"),),
        login=("login", *_AS_USER, "--cert-dir", place.certificates, "{host}"),
        logout=("logout", "{host}"),
    )


def _ctr(place: Place) -> Client:
    hosts = place.home / "hosts" / place.host
    hosts.mkdir(parents=True)
    known = f'server = "https://{place.host}"\n[host."https://{place.host}"]\nca = "{place.authority}"\n'
    (hosts / "hosts.toml").write_text(known)
    there = ("--hosts-dir", str(hosts.parent), "{as}")
    load = (("images", "import", "--snapshotter", "native", "{archive}"), ("images", "tag", "--force", LOCAL, "{ref}"))
    push = (*load, ("images", "push", *there, "{ref}"))
    pull = ("images", "pull", "--snapshotter", "native", "--max-concurrent-downloads", "1", *there)
    # It mounts from where it has pulled, not from where it has pushed.
    copy = ((*pull, "{source}"), ("images", "tag", "--force", "{source}", "{ref}"), push[-1])
    program, login = replace(place.ctr(), home=place.home), ("--user", "{user}:{password}")
    return Client(program, push=push, pull=((*pull, "{ref}"),), copy=copy, how=login)


def _crane(place: Place) -> Client:
    return Client(
        place.program(find("crane")),
        push=(("push", "{archive}", "{ref}"),),
        pull=(("pull", "--format", "oci", "{ref}", "{out}"),),
        copy=(("copy", "{source}", "{ref}"),),
        login=("auth", "login", *_AS_USER, "{host}"),
        logout=("auth", "logout", "{host}"),
    )


def _regctl(place: Place) -> Client:
    return Client(
        place.program(find("regctl")),
        push=(("image", "copy", "ocidir://{layout}:app", "{ref}"),),
        pull=(("image", "copy", "{ref}", "ocidir://{out}:app"),),
        copy=(("image", "copy", "{source}", "{ref}"),),
        login=("registry", "login", "-u", "{user}", "--pass-stdin", "{host}"),
        logout=("registry", "logout", "{host}"),
    )


def _oras(place: Place) -> Client:
    environment = {"PYTHONPATH": str(REPOSITORY), "REQUESTS_CA_BUNDLE": str(place.authority)}
    return Client(
        place.program(sys.executable, "-m", "tests.interop.oras_program", **environment),
        push=(("push", "{ref}", "{archive}"),),
        pull=(("pull", "{ref}", "{out}"),),
        login=("login", "{host}", "{user}"),
        logout=("logout", "{host}"),
    )


def _moorage(place: Place) -> Client:
    config = place.home / ".config" / "moorage"
    config.mkdir(parents=True)
    (config / "hosts.toml").write_text(f'["{place.host}"]\nplain_http = false\nca = "{place.authority}"\n')
    return Client(
        place.program(
            str(Path(sys.executable).with_name("moorage")),
            SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt", MOORAGE_STORE=str(place.home / "store"),
        ),
        push=(("push", "oci:{layout}:app", "{ref}"),),
        pull=(("pull", "{ref}"),),
        copy=(("copy", "{source}", "{ref}"),),
        login=("login", "--username", "{user}", "--password-stdin", "{host}"),
        logout=("logout", "{host}"),
    )  # fmt: skip


CLIENTS: dict[str, Callable[[Place], Client]] = {
    "docker": _docker,
    "podman": _podman,
    "buildah": _buildah,
    "skopeo": _skopeo,
    "containerd": _ctr,
    "crane": _crane,
    "regctl": _regctl,
    "oras": _oras,
    "moorage": _moorage,
}

MOUNTING = [name for name in CLIENTS if name != "oras"]
"""The Python package oras never asks for a mount."""
