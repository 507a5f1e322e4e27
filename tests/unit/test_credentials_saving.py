"""A login is kept where docker and podman find it, next to everything that was there."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from moorage.puller.credentials import Credentials, Keychain
from moorage.puller.credentials.model import Target
from moorage.puller.credentials.saving import forget_login, keep_login
from moorage.puller.errors import CredentialsUnusable
from moorage.puller.origins import Origin

_ALICE = Credentials("alice", "s3cret")
_HERE = Target(Origin.of("https://r.example:5000"))
_HUB = Target(Origin.of("https://registry-1.docker.io"))
_AUTH = base64.b64encode(b"alice:s3cret").decode()
_RICH = {
    "auths": {"other.example": {"auth": "eDp5", "email": "ü@example.org", "future": [1, 2.5, None, {"a": "\ud800"}]}},
    "HttpHeaders": {"X-Meta": "v"}, "psFormat": "table {{.ID}}", "big": 12345678901234567890,
}  # fmt: skip


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / ".docker" / "config.json"


def _write(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _found(environment: dict[str, str], target: Target) -> Credentials | None:
    return asyncio.run(Keychain.default(environment).find(target.origin, "any/thing"))


@pytest.mark.parametrize(
    ("target", "key"), [(_HERE, "r.example:5000"), (_HUB, "https://index.docker.io/v1/")], ids=["host", "Docker Hub"]
)
def test_a_login_is_kept_and_forgotten(environment: dict[str, str], config: Path, target: Target, key: str) -> None:
    """Under docker's name for it, readable by its owner only; nothing of it is left."""
    assert keep_login(_ALICE, target, environment) == (str(config), "")
    assert _read(config) == {"auths": {key: {"auth": _AUTH}}}
    assert (config.stat().st_mode & 0o777, config.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert _found(environment, target) == _ALICE
    assert forget_login(target, environment) == [str(config)]
    assert _read(config) == {"auths": {}}
    assert forget_login(target, environment) == []


def test_everything_else_stays(environment: dict[str, str], config: Path) -> None:
    """Entries of others, unknown settings, numbers, odd texts, their order; a file open to all is closed."""
    _write(config, _RICH)
    config.chmod(0o666)
    keep_login(_ALICE, _HERE, environment)
    document = _read(config)
    assert document["auths"].pop("r.example:5000") == {"auth": _AUTH}
    assert json.dumps(document) == json.dumps(_RICH)
    assert config.stat().st_mode & 0o777 == 0o600
    forget_login(_HERE, environment)
    assert json.dumps(_read(config)) == json.dumps(_RICH)
    assert os.listdir(config.parent) == ["config.json"]


def test_a_new_login_replaces_the_old(environment: dict[str, str], config: Path) -> None:
    """Identity token and all."""
    _write(config, {"auths": {"r.example:5000": {"auth": "eDp5", "identitytoken": "old", "registrytoken": "old"}}})
    keep_login(_ALICE, _HERE, environment)
    assert _found(environment, _HERE) == _ALICE
    keep_login(Credentials(identity_token="new"), _HERE, environment)
    assert _found(environment, _HERE) == Credentials(identity_token="new")


def test_all_names_of_a_registry_are_forgotten(environment: dict[str, str], config: Path, tmp_path: Path) -> None:
    """In docker's file and podman's; namespaces and other ports stay."""
    entry = {"auth": _AUTH}
    _write(config, {"auths": {"https://r.example:5000": entry, "r.example:5000/v2": entry, "r.example": entry}})
    podman = tmp_path / "run/containers/auth.json"
    _write(podman, {"auths": {"r.example:5000": entry, "r.example:5000/team": entry}})
    assert forget_login(_HERE, environment) == [str(config), str(podman)]
    assert list(_read(config)["auths"]) == ["r.example:5000/v2", "r.example"]
    assert list(_read(podman)["auths"]) == ["r.example:5000/team"]
    _write(config, {"auths": {"docker.io": entry, "https://index.docker.io/v1/": entry, "index.docker.io": entry}})
    forget_login(_HUB, environment)
    assert _read(config)["auths"] == {}


def test_a_helper_keeps_the_secret(
    environment: dict[str, str], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file names one; the file then only says that there is something."""
    store = tmp_path / "stored"
    program = tmp_path / "docker-credential-box"
    program.write_text(f"#!/bin/sh\ncase $1 in store) cat >{store};; get) cat {store};; erase) rm {store};; esac\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    _write(config, {"credsStore": "box", "auths": {"r.example:5000": {"auth": "eDp5"}}})
    assert keep_login(_ALICE, _HERE, environment) == (str(config), "box")
    assert _read(config) == {"credsStore": "box", "auths": {"r.example:5000": {}}}
    assert "s3cret" not in config.read_text()
    assert _found(environment, _HERE) == _ALICE
    assert forget_login(_HERE, environment) == [f"{config} (helper 'box')"]
    assert not store.exists()
    program.write_text("#!/bin/sh\nexit 5\n")
    before = config.read_bytes()
    with pytest.raises(CredentialsUnusable, match="could not store"):
        keep_login(_ALICE, _HERE, environment)
    assert config.read_bytes() == before


@pytest.mark.parametrize("content", ["{", "[]", '{"auths": []}', '{"a": 1, "a": 2}', '{"x": 1e999}'])
def test_a_file_that_cannot_be_kept_whole_is_left_alone(
    environment: dict[str, str], config: Path, content: str
) -> None:
    """Rather than repaired at somebody's expense."""
    config.parent.mkdir()
    config.write_text(content)
    with pytest.raises(CredentialsUnusable, match=r"config\.json"):
        keep_login(_ALICE, _HERE, environment)
    assert config.read_text() == content
    assert os.listdir(config.parent) == ["config.json"]


def test_a_link_stays_one(environment: dict[str, str], config: Path, tmp_path: Path) -> None:
    """What it leads to is replaced, as people's dotfiles want it."""
    _write(tmp_path / "dotfiles/docker.json", _RICH)
    config.parent.mkdir()
    config.symlink_to(tmp_path / "dotfiles/docker.json")
    keep_login(_ALICE, _HERE, environment)
    assert config.is_symlink()
    assert "r.example:5000" in _read(tmp_path / "dotfiles/docker.json")["auths"]


def test_logins_at_the_same_time_are_all_kept(environment: dict[str, str], config: Path) -> None:
    """Nobody overwrites another's."""
    targets = [Target(Origin.of(f"https://r{number}.example")) for number in range(16)]
    threads = [threading.Thread(target=keep_login, args=(_ALICE, target, environment)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_read(config)["auths"]) == 16
