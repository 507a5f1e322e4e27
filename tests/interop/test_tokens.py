"""The token protocol as others serve it: distribution's sample token server in front of Debian's docker-registry."""

from __future__ import annotations

import base64
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.peers import peer_with_tokens
from tests.interop.programs import Program, find

_USER, _PASSWORD = "alice", "s3cret"
_BASIC = base64.b64encode(f"{_USER}:{_PASSWORD}".encode()).decode()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens") / "place"


@pytest.fixture(scope="module")
def host(place: Path) -> Iterator[str]:
    """The registry: ``127.0.0.1:PORT``."""
    with peer_with_tokens(place, accounts={_USER: _PASSWORD}) as url:
        yield url.removeprefix("http://")


@pytest.fixture
def moorage(tmp_path: Path) -> Program:
    """Our client, of a user who has never logged in."""
    environment = {"MOORAGE_STORE": str(tmp_path / "store"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    return Program((str(Path(sys.executable).with_name("moorage")),), tmp_path / "home", environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("content\n")
    return tmp_path / "folder"


def _log_in(moorage: Program, host: str) -> None:
    moorage("login", "--username", _USER, "--password-stdin", host, stdin=_PASSWORD.encode())


def test_login_push_mount_pull(moorage: Program, host: str, folder: Path, tmp_path: Path) -> None:
    """With a token for each scope; a copy within the registry mounts, with a token for both repositories."""
    _log_in(moorage, host)
    moorage("push", folder, f"{host}/alice/app:v1")
    moorage("copy", f"{host}/alice/app:v1", f"{host}/alice/copy:v1")
    moorage("pull", f"{host}/alice/copy:v1", "--unpack", tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text() == "content\n"
    skopeo = Program((find("skopeo"),), moorage.home, moorage.environment)
    skopeo("inspect", "--tls-verify=false", f"docker://{host}/alice/copy:v1")


def test_a_wrong_password(moorage: Program, host: str) -> None:
    """Is refused by the token server, in one line, and not kept."""
    done = moorage.attempt("login", "--username", _USER, "--password-stdin", host, stdin=b"wrong")
    assert done.returncode == 1
    assert b"it refused 'alice'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (moorage.home / ".docker").exists()


def test_what_is_not_ours_is_denied(moorage: Program, host: str, folder: Path) -> None:
    """The token that the server gives then is worth nothing; the last line says so."""
    _log_in(moorage, host)
    done = moorage.attempt("push", folder, f"{host}/bob/app:v1")
    assert done.returncode == 1
    assert b"not permitted to 'alice': repository:bob/app:" in done.stderr.splitlines()[-1]


def test_an_identity_token(moorage: Program, host: str, folder: Path, place: Path) -> None:
    """As docker would have kept it: exchanged by POST for each token."""
    realm = (place / "config.yml").read_text().partition("realm: '")[2].partition("'")[0]
    url = f"{realm}?service=peer&offline_token=true&client_id=test"
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {_BASIC}"})  # noqa: S310  # ours
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  # a loopback server that we started
        refresh = json.load(answer)["refresh_token"]
    config = moorage.home / ".docker" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"auths": {host: {"identitytoken": refresh}}}))
    moorage("push", folder, f"{host}/alice/identity:v1")
    assert moorage("tags", f"{host}/alice/identity").split() == ["v1"]
    config.write_text(json.dumps({"auths": {host: {"identitytoken": "wrong"}}}))
    done = moorage.attempt("tags", f"{host}/alice/identity")
    assert done.returncode == 1
    assert b"it refused an identity token" in done.stderr
