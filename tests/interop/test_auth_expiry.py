"""A token that expires while a push or a pull is under way: the client gets another one and goes on.

The line is so slow that a layer takes longer than a token lives, leeway included; all clients are at it at once. Two
are treated apart. The Python package oras is left out: on a 401 it shows the token that was just refused, whatever the
answer says. containerd 1.6 does so once, gives up with a plain error, and comes through when it is asked again.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from moorage.auth.claims import LEEWAY

from tests.interop.clients import CLIENTS, Client, Done, Place, image_of
from tests.interop.programs import Program
from tests.interop.secured import ALICE, Secured, secured
from tests.interop.slow_line import SlowLine

TTL = 60
"""Seconds: the shortest that can be configured, as docker takes anything less for that."""

_LARGE = 2 * 1024 * 1024

PUSHING = [name for name in CLIENTS if name not in ("oras", "containerd")]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Secured]:
    """A registry whose tokens live as short as can be."""
    with secured(tmp_path / "secured", ttl=TTL) as registry:
        yield registry


@pytest.fixture
def containers() -> Iterator[str]:
    """A directory with a short name, for the stores of podman and buildah."""
    with tempfile.TemporaryDirectory(prefix="moorage-", ignore_cleanup_errors=True) as place:
        yield place


@pytest.mark.timeout(600)
def test_a_token_expires_in_mid_push(
    registry: Secured, docker: Program, ctr: Program, containers: str, tmp_path: Path
) -> None:
    """All come through, each with a token from before the layers and one from after."""

    def client_of(name: str, host: str, *, home: str = "") -> Client:
        return _client(name, registry, host, containers, tmp_path / (home or name), lambda: docker, lambda: ctr)

    def push(name: str) -> Done:
        image = image_of(tmp_path / f"image of {name}", name, size=_LARGE)
        with SlowLine(registry.host, hold=TTL + LEEWAY + 5) as line:
            client = client_of(name, line.host)
            assert client.log_in(line.host, *ALICE).returncode == 0
            return client.push_image(image, f"{line.host}/team/{name}:v1")

    def pull(name: str) -> Done:
        image = image_of(tmp_path / f"image of {name}", name, size=_LARGE)
        uploader = client_of("crane", registry.host, home="uploader")
        uploader.log_in(registry.host, *ALICE)
        assert uploader.push_image(image, registry.stored.ref(f"team/{name}", "v1")).returncode == 0
        with SlowLine(registry.host, hold=TTL + LEEWAY + 5) as line:
            client = client_of(name, line.host)
            client.log_in(line.host, *ALICE)
            first = client.pull_image(f"{line.host}/team/{name}:v1")
            assert first.returncode == 0 or b"authorization failed" in first.stderr, first
            return client.pull_image(f"{line.host}/team/{name}:v1")

    with ThreadPoolExecutor(len(CLIENTS)) as threads:
        running = {name: threads.submit(push, name) for name in PUSHING}
        running["containerd"] = threads.submit(pull, "containerd")
        done = {name: future.result() for name, future in running.items()}
    assert {name: one for name, one in done.items() if one.returncode != 0} == {}
    for name in done:
        times = _tokens(tmp_path / "secured" / "audit.log", f"repository:team/{name}:")
        assert (times[-1] - times[0]).total_seconds() > TTL, f"{name} came through with one token"
        assert registry.stored.graph(f"team/{name}", "v1")


def _client(
    name: str, registry: Secured, host: str, containers: str, home: Path, docker: Callable[[], Program],
    ctr: Callable[[], Program],
) -> Client:  # fmt: skip
    (home / "run").mkdir(parents=True)
    (home / "auth.json").write_text('{"auths": {}}')
    store = ("--root", f"{containers}/{name}", "--runroot", f"{containers}/{name}-run", "--storage-driver", "vfs")
    client = CLIENTS[name](Place(home, registry.authority.certificate, host, store, docker, ctr))
    client.program = replace(client.program, patience=400)
    return client


def _tokens(log: Path, scope: str) -> list[datetime]:
    """When tokens for a repository were given out."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    given = [line for line in lines if line["event"] == "token" and scope in line.get("action", "")]
    return sorted(datetime.fromisoformat(line["time"]) for line in given)
