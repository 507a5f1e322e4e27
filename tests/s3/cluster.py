"""MinIO as a cluster of four nodes, each in a network namespace of its own, and one more for those who use it.

Law: all of it is inside namespaces that are made here, named after this process; nothing of the machine's own network
is touched or asked. They are removed whatever happens: at the end, and what a killed run left, at the next start.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["NODES", "Cluster", "cluster"]

NODES: Final = 4
_NETWORK: Final = "10.77.0"
_OURS = re.compile(r"moorage-(\d+)-\w+")


@dataclass
class Cluster:
    """The nodes. ``hub``: the namespace from which they can be reached; ``environment``: credentials for boto3."""

    hub: str
    folder: Path
    environment: dict[str, str]
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def endpoint(self, number: int) -> str:
        """Where a node (1 to 4) answers."""
        return f"http://{_NETWORK}.{number}:9000"

    def start(self, number: int) -> None:
        """Starts a node; it joins the others by itself."""
        places = [f"{self.endpoint(n)}{self.folder}/disk{n}" for n in range(1, NODES + 1)]
        with (self.folder / f"log{number}").open("ab") as log:
            self.processes[number] = subprocess.Popen(
                [
                    *("ip", "netns", "exec", _name(number), str(shutil.which("minio"))),
                    *("server", "--quiet", "--address", f"{_NETWORK}.{number}:9000", *places),
                ],
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(self.folder),
                    "MINIO_ROOT_USER": self.environment["AWS_ACCESS_KEY_ID"],
                    "MINIO_ROOT_PASSWORD": self.environment["AWS_SECRET_ACCESS_KEY"],
                    "MINIO_BROWSER": "off",
                    "MINIO_CI_CD": "1",  # else it wants disks of their own
                },
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def stop(self, number: int, kind: signal.Signals) -> None:
        """Ends a node."""
        process = self.processes.pop(number)
        process.send_signal(kind)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def logs(self) -> str:
        """The last words of every node."""
        return "\n".join(path.read_text(errors="replace")[-1000:] for path in sorted(self.folder.glob("log*")))


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A running cluster, its disks in ``folder``. Needs root and ``ip`` (Debian: iproute2)."""
    _clean_after_the_dead()
    secret = {"AWS_ACCESS_KEY_ID": f"key{secrets.token_hex(8)}", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}
    with ExitStack() as stack:
        hub = _name("hub")
        stack.callback(_remove, hub)
        _ip("netns", "add", hub)
        _ip("-n", hub, "link", "set", "lo", "up")
        _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", hub, "addr", "add", f"{_NETWORK}.254/24", "dev", "bridge")
        _ip("-n", hub, "link", "set", "bridge", "up")
        nodes = Cluster(hub, folder, secret)
        for number in range(1, NODES + 1):
            stack.callback(_remove, _name(number))
            _join(hub, number)
        stack.callback(_stop_all, nodes)
        for number in range(1, NODES + 1):
            nodes.start(number)
        yield nodes


def _join(hub: str, number: int) -> None:
    name = _name(number)
    _ip("netns", "add", name)
    _ip("-n", hub, "link", "add", f"node{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("-n", hub, "link", "set", f"node{number}", "master", "bridge", "up")
    _ip("-n", name, "addr", "add", f"{_NETWORK}.{number}/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    _ip("-n", name, "link", "set", "lo", "up")


def _stop_all(nodes: Cluster) -> None:
    for number in list(nodes.processes):
        nodes.stop(number, signal.SIGKILL)


def _name(what: int | str) -> str:
    return f"moorage-{os.getpid()}-{what}"


def _remove(name: str) -> None:
    """Removes a namespace and whoever is still in it."""
    inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
    for pid in map(int, inside.split()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _clean_after_the_dead() -> None:
    """Removes namespaces of runs that were killed themselves."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        name = line.split()[0]
        found = _OURS.fullmatch(name)
        if found and (int(found[1]) == os.getpid() or not Path(f"/proc/{found[1]}").exists()):
            _remove(name)  # numbers of processes come back: one that was ours cannot be ours yet


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
