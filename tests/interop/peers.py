"""Other registries, started here, for our client to talk to."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import bcrypt

from tests.interop.programs import daemon, find

__all__ = ["PEERS", "peer"]

PEERS = {"distribution 3": ("registry", "serve"), "Debian's docker-registry": ("docker-registry", "serve")}
"""Name → program and verb. Both read the same kind of configuration file."""


@contextmanager
def peer(name: str, place: Path, *, accounts: Mapping[str, str] | None = None) -> Iterator[str]:
    """Runs a registry over ``place`` on a free port until the block ends; yields its URL.

    Args:
        accounts: the passwords of those who may use it; None: everybody may.
    """
    program, verb = PEERS[name]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    place.mkdir(parents=True)
    config = place / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{address}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: {place / 'data'}}}, delete: {{enabled: true}}}}\n"
    )
    if accounts is not None:
        lines = (
            f"{user}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(5)).decode()}" for user, word in accounts.items()
        )
        (place / "htpasswd").write_text("\n".join(lines))
        with config.open("a") as file:
            file.write(f"auth: {{htpasswd: {{realm: 'peer', path: '{place / 'htpasswd'}'}}}}\n")
    with daemon([find(program), verb, config], place / "log", lambda: _answers(f"http://{address}/v2/")):
        yield f"http://{address}"


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # a loopback registry that we started
            return bool(answer.status == 200)
    except urllib.error.HTTPError as answer:
        return answer.code == 401
    except (urllib.error.URLError, ConnectionError):
        return False
