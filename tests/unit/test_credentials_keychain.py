"""Where credentials are looked up, in which order, and the programs that keep them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from moorage.puller.credentials import Credentials, FixedKeychain, Keychain
from moorage.puller.credentials import helpers as helpers_module
from moorage.puller.credentials.helpers import ask_helper, erase_from_helper, store_in_helper
from moorage.puller.credentials.model import Target
from moorage.puller.credentials.places import file_for_login
from moorage.puller.errors import CredentialsUnusable
from moorage.puller.origins import Origin

_HERE = Origin.of("https://r.example")
_HUB = Origin.of("https://registry-1.docker.io")
_Install = Callable[[str, str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Install:
    """Puts a helper on PATH: a shell script that sees its verb as $1 and writes what it was told to NAME.heard."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def write(name: str, script: str) -> Path:
        program, heard = folder / f"docker-credential-{name}", folder / f"{name}.heard"
        program.write_text(f'#!/bin/sh\nheard=$(cat)\necho "$1 $heard" >> {heard}\n{script}\n')
        program.chmod(0o755)
        return heard

    return write


def _gives(username: str, secret: str) -> str:
    return f"echo '{json.dumps({'ServerURL': 'x', 'Username': username, 'Secret': secret})}'"


def _document(user: str, key: str = "r.example") -> str:
    return json.dumps({"auths": {key: {"auth": base64.b64encode(f"{user}:p".encode()).decode()}}})


def _environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run"), **more}


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


async def _who(environment: dict[str, str], origin: Origin = _HERE, repository: str = "") -> str:
    found = await Keychain.default(environment).find(origin, repository)
    return found.username or found.identity_token if found else "nobody"


async def test_places_are_asked_in_order(tmp_path: Path) -> None:
    """Each in turn, from the last to the first, takes over; the documented order is the order."""
    environment = _environment(tmp_path)
    assert await _who(environment) == "nobody"
    _write(tmp_path / ".config/containers/auth.json", _document("podman, lasting"))
    assert await _who(environment) == "podman, lasting"
    _write(tmp_path / "run/containers/auth.json", _document("podman, session"))
    assert await _who(environment) == "podman, session"
    _write(tmp_path / ".docker/config.json", _document("docker"))
    assert await _who(environment) == "docker"
    _write(tmp_path / "chosen.json", _document("chosen"))
    environment["REGISTRY_AUTH_FILE"] = str(tmp_path / "chosen.json")
    assert await _who(environment) == "chosen"
    environment["DOCKER_AUTH_CONFIG"] = _document("text")
    assert await _who(environment) == "text"
    environment |= {"MOORAGE_REGISTRY": "r.example", "MOORAGE_USERNAME": "variables", "MOORAGE_PASSWORD": "p"}
    assert await _who(environment) == "variables"


async def test_other_folders_may_be_named(tmp_path: Path) -> None:
    """By DOCKER_CONFIG and XDG_CONFIG_HOME; REGISTRY_AUTH_FILE replaces podman's files, not docker's."""
    _write(tmp_path / "d/config.json", _document("docker"))
    _write(tmp_path / "c/containers/auth.json", _document("podman"))
    assert await _who(_environment(tmp_path, DOCKER_CONFIG=str(tmp_path / "d"))) == "docker"
    podman = _environment(tmp_path, XDG_CONFIG_HOME=str(tmp_path / "c"))
    assert await _who(podman) == "podman"
    _write(tmp_path / "empty.json", "{}")
    assert await _who({**podman, "REGISTRY_AUTH_FILE": str(tmp_path / "empty.json")}) == "nobody"


async def test_variables_are_for_one_registry(tmp_path: Path) -> None:
    """Exactly the one that is named: no other host, no other port."""
    environment = _environment(tmp_path, MOORAGE_USERNAME="alice", MOORAGE_PASSWORD="p", MOORAGE_REGISTRY="r.example")
    assert await _who(environment) == "alice"
    for other in (
        "https://r.example:5000",
        "http://r.example:443",
        "https://x.r.example",
        "https://registry-1.docker.io",
    ):
        assert await _who(environment, Origin.of(other)) == "nobody"
    assert await _who({**environment, "MOORAGE_REGISTRY": "docker.io"}, _HUB) == "alice"


@pytest.mark.parametrize("missing", ["MOORAGE_REGISTRY", "MOORAGE_USERNAME", "MOORAGE_PASSWORD"])
async def test_half_a_login_is_refused(tmp_path: Path, missing: str) -> None:
    """A password without a registry is sent nowhere, and that is said."""
    every = {"MOORAGE_REGISTRY": "r.example", "MOORAGE_USERNAME": "alice", "MOORAGE_PASSWORD": "s3cret"}
    environment = _environment(tmp_path, **{name: value for name, value in every.items() if name != missing})
    with pytest.raises(CredentialsUnusable, match=f"{missing} is not set") as caught:
        await _who(environment)
    assert "s3cret" not in caught.value.message
    assert await _who(_environment(tmp_path, MOORAGE_REGISTRY="r.example")) == "nobody"


async def test_helpers_are_asked_first(tmp_path: Path, install: _Install) -> None:
    """The registry's own, then the store of all; an empty name switches the store off; then the file's own entry."""
    own, common = install("own", _gives("own", "x")), install("common", _gives("common", "x"))
    config = json.loads(_document("file"))

    async def who(**more: object) -> str:
        _write(tmp_path / ".docker/config.json", json.dumps(config | more))
        return await _who(_environment(tmp_path))

    assert await who(credHelpers={"r.example": "own"}, credsStore="common") == "own"
    assert own.read_text() == "get r.example\n"
    assert not common.exists()
    assert await who(credHelpers={"other.example": "own"}, credsStore="common") == "common"
    assert await who(credHelpers={"r.example": ""}, credsStore="common") == "file"
    install("common", "echo 'credentials not found in native keychain'; exit 1")
    assert await who(credsStore="common") == "file"


async def test_a_helper_that_fails_is_told_with_its_file(tmp_path: Path, install: _Install) -> None:
    """So that it can be mended where it is named."""
    install("own", "exit 3")
    _write(tmp_path / ".docker/config.json", '{"credsStore": "own"}')
    with pytest.raises(CredentialsUnusable, match=r"config\.json: the credential helper 'own' failed with status 3"):
        await _who(_environment(tmp_path))


async def test_docker_hub_is_asked_for_by_its_old_name(tmp_path: Path, install: _Install) -> None:
    """Which is what docker stores it under; then by the others."""
    heard = install("own", "echo credentials not found in native keychain; exit 1")
    _write(tmp_path / ".docker/config.json", '{"credHelpers": {"docker.io": "own"}}')
    assert await _who(_environment(tmp_path), _HUB) == "nobody"
    assert heard.read_text() == "get https://index.docker.io/v1/\nget index.docker.io\nget docker.io\n"


def test_a_helper_may_keep_an_identity_token(install: _Install) -> None:
    """It says so by the user's name."""
    install("own", _gives("<token>", "t"))
    assert ask_helper("own", ("r.example",)) == Credentials(identity_token="t")
    install("own", _gives("", ""))
    assert ask_helper("own", ("r.example",)) is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        pytest.param("echo s3cret; exit 1", "failed with status 1", id="fails"),
        pytest.param("exit 0", "something else", id="says nothing"),
        pytest.param("echo s3cret", "something else", id="not JSON"),
        pytest.param("echo '[\"s3cret\"]'", "something else", id="not an object"),
        pytest.param('echo \'{"Username": "a", "Secret": 5}\'', "something else", id="not a text"),
        pytest.param("head -c 70000 /dev/zero", "more than 65536 bytes", id="too long"),
        pytest.param("yes", "more than 65536 bytes", id="endless"),
        pytest.param("exec sleep 60", "took more than", id="silent"),
        pytest.param("sleep 60 & exit 0", "took more than", id="a child keeps the pipe"),
        pytest.param("kill -9 $$", "failed with status -9", id="killed"),
    ],
)
def test_a_helper_that_misbehaves_is_an_error(
    install: _Install, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    """One line with its name; in bounded time and memory; what it said is not shown."""
    if reason == "took more than":  # the others are quick, but on a busy machine not that quick
        monkeypatch.setattr(helpers_module, "_TIMEOUT", 0.5)
    install("own", script)
    started = time.monotonic()
    with pytest.raises(CredentialsUnusable, match=reason) as caught:
        ask_helper("own", ("r.example",))
    assert time.monotonic() - started < 50  # the silent ones would take 60 s
    assert "'own'" in caught.value.message
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize("name", ["../own", "a/b", "", ".hidden", "a b", "a\n", "-x", "x" * 65, "ü"])
def test_a_name_is_no_path(install: _Install, name: str) -> None:
    """Nothing but a program of the right name on PATH is run (rule N10)."""
    install("own", _gives("alice", "x"))
    with pytest.raises(CredentialsUnusable, match="not the name of a credential helper"):
        ask_helper(name, ("r.example",))


def test_a_helper_of_the_current_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty or relative entry of PATH means the folder we happen to be in."""
    (tmp_path / "docker-credential-own").write_text("#!/bin/sh\ntouch ran\n")
    (tmp_path / "docker-credential-own").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for path in ("", ".", "./"):
        monkeypatch.setenv("PATH", path)
        with pytest.raises(CredentialsUnusable, match="not installed"):
            ask_helper("own", ("r.example",))
    assert not (tmp_path / "ran").exists()


def test_no_line_is_smuggled_to_a_helper(install: _Install) -> None:
    """Its protocol is one line."""
    heard = install("own", _gives("alice", "x"))
    with pytest.raises(CredentialsUnusable, match="not a registry"):
        ask_helper("own", ("r.example\nother.example",))
    assert not heard.exists()


def test_helpers_store_and_erase(install: _Install) -> None:
    """In docker's protocol; that there was nothing to erase is no error, any other failure is."""
    heard = install("own", "")
    store_in_helper("own", "r.example", Credentials("alice", "s3cret"))
    store_in_helper("own", "r.example", Credentials("alice", identity_token="t"))
    erase_from_helper("own", "r.example")
    lines = heard.read_text().splitlines()
    assert json.loads(lines[0].removeprefix("store ")) == {
        "ServerURL": "r.example", "Username": "alice", "Secret": "s3cret",
    }  # fmt: skip
    assert json.loads(lines[1].removeprefix("store "))["Username"] == "<token>"
    assert lines[2] == "erase r.example"
    install("own", "echo credentials not found in native keychain; exit 1")
    erase_from_helper("own", "r.example")
    install("own", "exit 3")
    with pytest.raises(CredentialsUnusable, match=r"could not erase \(status 3\)"):
        erase_from_helper("own", "r.example")


def test_a_helper_need_not_listen(install: _Install, tmp_path: Path) -> None:
    """One that answers without reading is heard."""
    program = tmp_path / "bin/docker-credential-deaf"
    program.write_text(f"#!/bin/sh\nexec <&-\n{_gives('alice', 'x')}\n")
    program.chmod(0o755)
    assert ask_helper("deaf", ("r.example" * 100,)) == Credentials("alice", "x")


def test_every_place_explains_itself(tmp_path: Path, install: _Install) -> None:
    """In order, up to the last; helpers after the first credentials are named and not run."""
    heard = install("own", _gives("never", "x"))
    _write(tmp_path / "run/containers/auth.json", _document("alice"))
    _write(tmp_path / ".config/containers/auth.json", '{"credsStore": "own"}')
    environment = _environment(tmp_path, MOORAGE_USERNAME="bob", MOORAGE_PASSWORD="p", MOORAGE_REGISTRY="x.example")
    findings = list(Keychain.default(environment).explain(Target(_HERE)))
    assert [(one.source.rpartition("/")[2], one.reason) for one in findings] == [
        ("variables MOORAGE_USERNAME and MOORAGE_PASSWORD", "are for MOORAGE_REGISTRY=x.example, not for r.example"),
        ("variable DOCKER_AUTH_CONFIG", "is not set"),
        ("config.json", "there is no such file"),
        ("auth.json", "its entry 'r.example'"),
        ("auth.json", "credsStore names the helper 'own'"),
        ("auth.json", "it has no entry for r.example"),
    ]
    assert [one.credentials.username for one in findings if one.credentials] == ["alice"]
    assert not heard.exists()


def test_a_place_that_is_broken_ends_the_search(tmp_path: Path) -> None:
    """It is told as a reason, and nobody after it is asked."""
    _write(tmp_path / ".docker/config.json", "{")
    _write(tmp_path / "run/containers/auth.json", json.dumps({"credsStore": "never-asked"}))
    findings = list(Keychain.default(_environment(tmp_path)).explain(Target(_HERE)))
    assert [one.is_failure for one in findings] == [False, False, True, False, False, False]
    assert findings[3].reason == "credsStore names the helper 'never-asked'"


async def test_given_credentials_are_used_as_they_are() -> None:
    """For whatever registry they were given."""
    alice = Credentials("alice", "p")
    assert await FixedKeychain(alice).find(_HERE) is alice


def test_login_writes_the_file_in_use(tmp_path: Path) -> None:
    """The one that a variable names, docker's, podman's where there is only that, and else docker's."""
    environment = _environment(tmp_path)
    docker, podman = tmp_path / ".docker/config.json", tmp_path / "run/containers/auth.json"
    assert file_for_login(environment) == str(docker)
    _write(podman, "{}")
    assert file_for_login(environment) == str(podman)
    assert file_for_login({**environment, "DOCKER_CONFIG": "/d"}) == "/d/config.json"
    _write(docker, "{}")
    assert file_for_login(environment) == str(docker)
    assert file_for_login({**environment, "REGISTRY_AUTH_FILE": "/f"}) == "/f"
