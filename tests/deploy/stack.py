"""What ``deploy/compose.yml`` describes, as processes of this machine, which reaches no image of others.

Law: commands, variables and nginx's configuration are those that are shipped, as docker-compose reads them; only
addresses, ports and folders are other ones, and each that is replaced must have been there.
"""

from __future__ import annotations

import functools
import os
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import bcrypt
import trustme
import yaml

from tests.interop.programs import daemon, find
from tests.s3.servers import free_port

__all__ = ["DEPLOY", "PASSWORD", "USER", "Stack", "as_shipped", "compose_file", "stack", "with_redirects"]

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
USER: Final = "alice"
PASSWORD: Final = "correct horse"
_SECRETS: Final = {"S3_KEY": "stack-key", "S3_SECRET": "stack-secret-0123", "EXTERNAL_URL": "https://{nginx}"}
_MOORAGE: Final = Path(sys.executable).with_name("moorage")

Change = Callable[[dict[str, str]], dict[str, str]]
"""What is done to the variables of a replica."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The services. ``url``: of nginx; ``bucket``: the URL of the S3 server; ``folder``: their logs."""

    url: str
    bucket: str
    folder: Path
    ca: Path
    nginx: int
    replicas: tuple[subprocess.Popen[bytes], ...]

    @property
    def host(self) -> str:
        """nginx as image references name it."""
        return self.url.removeprefix("https://")

    def trust(self) -> ssl.SSLContext:
        """What a client needs to believe nginx."""
        return ssl.create_default_context(cafile=str(self.ca))

    def log(self, name: str) -> str:
        """What a service has printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def nginx_workers(self) -> list[int]:
        """The processes of nginx that carry what clients send."""
        return [int(pid) for pid in Path(f"/proc/{self.nginx}/task/{self.nginx}/children").read_text().split()]


def compose_file(variables: Mapping[str, str]) -> dict[str, Any]:
    """The services as docker-compose reads the file with these variables."""
    command = [find("docker-compose"), "--file", str(DEPLOY / "compose.yml"), "config"]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return services


def as_shipped(environment: dict[str, str]) -> dict[str, str]:
    """No change."""
    return environment


def with_redirects(environment: dict[str, str]) -> dict[str, str]:
    """What the comment in the file says: clients can reach the S3 server under a name of its own."""
    root = environment["MOORAGE_ROOT"]
    public = root.partition("endpoint=")[2].partition("&")[0]
    return {name: value for name, value in environment.items() if name != "MOORAGE_REDIRECT"} | {
        "MOORAGE_ROOT": f"{root}&public_endpoint={public}"
    }


def _free_ports(count: int) -> set[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return found


@contextmanager
def stack(folder: Path, change: Change, *, nginx: Callable[[str], str] = lambda text: text) -> Iterator[Stack]:
    """Runs the services in ``folder`` until the block ends.

    Args:
        change: what is done to the replicas' variables.
        nginx: what is done to nginx's configuration.
    """
    names = ("minio", "registry1", "registry2", "nginx")
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    at = {name: f"127.0.0.1:{port}" for name, port in ports.items()} | {"nginx": f"localhost:{ports['nginx']}"}
    services = compose_file({name: value.format(**at) for name, value in _SECRETS.items()})
    ca = _certificates(folder / "tls")
    accounts = _accounts(folder / "accounts")
    with ExitStack() as running:
        running.enter_context(_minio(services["minio"], folder, at["minio"]))
        replicas = []
        for name in ("registry1", "registry2"):
            given = _replace(services[name]["environment"], {"minio:9000": at["minio"], "172.30.55.2": "127.0.0.1"})
            given = change(_replace(given, {"/etc/moorage": str(accounts)}))
            replicas.append(running.enter_context(_replica(name, services[name], folder, at[name], given)))
        front = running.enter_context(_nginx(folder, at, ports["nginx"], nginx))
        yield Stack(f"https://{at['nginx']}", f"http://{at['minio']}", folder, ca, front.pid, tuple(replicas))


def _replace(environment: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    given = dict(environment)
    for old, new in others.items():
        assert any(old in value for value in given.values()), f"{old} does not stand in the compose file"
        given = {name: value.replace(old, new) for name, value in given.items()}
    return given


def _minio(service: Mapping[str, Any], folder: Path, address: str) -> Any:
    shell, dash, line = service["entrypoint"]
    assert "exec minio server" in line
    assert ":9000 /data" in line
    line = line.replace("exec minio", f"exec {shlex.quote(find('minio'))}")
    line = line.replace(":9000", address).replace("/data", shlex.quote(str(folder / "data")))
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "MINIO_CI_CD": "1", **service["environment"]}
    (folder / "data").mkdir()
    ready = functools.partial(_answers, f"http://{address}/minio/health/live")
    return daemon([shell, dash, line], folder / "minio.log", ready, environment=environment)


@contextmanager
def _replica(
    name: str, service: Mapping[str, Any], folder: Path, address: str, given: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "MOORAGE_LISTEN": address, **given}
    command: list[str | Path] = [_MOORAGE, *service["command"]]
    ready = functools.partial(_answers, f"http://{address}/readyz")
    with daemon(command, folder / f"{name}.log", ready, environment=environment) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.send_signal(signal.SIGINT)  # the second signal: do not wait for anybody


def _nginx(folder: Path, at: Mapping[str, str], port: int, change: Callable[[str], str]) -> Any:
    text = (DEPLOY / "nginx.conf").read_text()
    others = {
        "registry1:5000": at["registry1"],
        "registry2:5000": at["registry2"],
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/nginx/tls": str(folder / "tls"),
    }
    for old, new in others.items():
        assert old in text, f"{old} does not stand in nginx.conf"
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(change(text))
    folder.chmod(0o755)
    command: list[str | Path] = [find("nginx", "/usr/sbin/nginx"), "-c", folder / "nginx.conf", "-p", folder]
    command += ["-e", "stderr", "-g", f"daemon off; pid {folder}/nginx.pid;"]
    return daemon(command, folder / "nginx.log", lambda: _listens(port))


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # a loopback server that we started
            return bool(answer.status == 200)
    except OSError:  # URLError is one, and so is a time-out, which urllib passes on as it is
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _certificates(folder: Path) -> Path:
    folder.mkdir()
    ca = trustme.CA()
    issued = ca.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "tls.key")
    for number, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(folder / "tls.crt", append=number > 0)
    ca.cert_pem.write_to_path(folder / "ca.crt")
    return folder / "ca.crt"


def _accounts(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    (folder / "htpasswd").write_text(f"{USER}:{hashed}\n")
    (folder / "htpasswd").chmod(0o600)
    return folder
