"""One login serves all: what ``moorage login`` keeps docker, podman, skopeo and crane use, and the other way round."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.interop.peers import PEERS, peer
from tests.interop.programs import Program, find

_USER, _PASSWORD = "alice", "s3cret:with colons"
_IMAGE = "team/app:v1"


@dataclass(frozen=True)
class Account:
    """A user with a home of its own, in which every program runs, and a registry that wants a password."""

    host: str
    home: Path
    environment: dict[str, str]

    def run(self, *command: str) -> Program:
        """A program of this user."""
        return Program(command, self.home, self.environment)

    @property
    def moorage(self) -> Program:
        """Our client."""
        return self.run(str(Path(sys.executable).with_name("moorage")))

    @property
    def config(self) -> Path:
        """docker's file."""
        return self.home / ".docker" / "config.json"

    def log_in(self) -> None:
        """As ``moorage`` does it."""
        self.moorage("login", "--username", _USER, "--password-stdin", self.host, stdin=_PASSWORD.encode())

    def is_in(self) -> bool:
        """Whether ``moorage`` may read."""
        done = self.moorage.attempt("tags", f"{self.host}/team/app")
        assert done.returncode == 0 or b"nobody is logged in" in done.stderr, done.stderr
        return done.returncode == 0


@dataclass(frozen=True)
class Tool:
    """A foreign program: how it logs in and out and reads an image."""

    program: Callable[[Account], Program]
    login: tuple[str, ...]
    logout: tuple[str, ...]
    read: tuple[str, ...]

    def reads(self, account: Account) -> bool:
        """Whether it may; that it may not must be for want of a login."""
        done = self.program(account).attempt(*self._filled(self.read, account))
        said = (done.stdout + done.stderr).decode().lower()
        assert done.returncode == 0 or "auth" in said, said
        return done.returncode == 0

    def log_in(self, account: Account) -> None:
        """By its own command."""
        self.program(account)(*self._filled(self.login, account), stdin=_PASSWORD.encode())

    def log_out(self, account: Account) -> None:
        """By its own command."""
        self.program(account)(*self._filled(self.logout, account))

    def _filled(self, words: tuple[str, ...], account: Account) -> list[str]:
        return [word.format(host=account.host, image=f"{account.host}/{_IMAGE}") for word in words]


_AS_USER = ("--username", _USER, "--password-stdin")
_SKOPEO = Tool(
    lambda account: account.run(find("skopeo")),
    ("login", *_AS_USER, "--tls-verify=false", "{host}"),
    ("logout", "{host}"),
    ("inspect", "--raw", "--tls-verify=false", "docker://{image}"),
)
_CRANE = Tool(
    lambda account: account.run(find("crane")),
    ("auth", "login", *_AS_USER, "{host}"),
    ("auth", "logout", "{host}"),
    ("manifest", "{image}"),
)


@pytest.fixture(scope="module", params=PEERS)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, layout: Path) -> Iterator[str]:
    """A registry by others, with one account and one image."""
    place = tmp_path_factory.mktemp("accounts") / "place"
    with peer(request.param, place, accounts={_USER: _PASSWORD}) as url:
        name = url.removeprefix("http://")
        skopeo = Program((find("skopeo"),), place / "skopeo")
        there = ("--dest-tls-verify=false", "--dest-creds", f"{_USER}:{_PASSWORD}", f"docker://{name}/{_IMAGE}")
        skopeo("copy", f"oci:{layout}:app", *there)
        yield name


@pytest.fixture
def account(host: str, tmp_path: Path) -> Account:
    """A user who has never logged in anywhere."""
    (tmp_path / "run").mkdir()
    store = str(tmp_path / "store")
    return Account(host, tmp_path / "home", {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "MOORAGE_STORE": store})


@pytest.fixture(params=["docker", "podman", "skopeo", "crane"])
def tool(request: pytest.FixtureRequest) -> Tool:
    """Each of the foreign programs."""
    if request.param in ("skopeo", "crane"):
        return {"skopeo": _SKOPEO, "crane": _CRANE}[request.param]
    if request.param == "podman":
        arguments: tuple[str, ...] = request.getfixturevalue("container_store")
        secure = ("login", *_AS_USER, "--tls-verify=false", "{host}")
        read = ("pull", "--tls-verify=false", "{image}")
        return Tool(lambda account: account.run(find("podman"), *arguments), secure, ("logout", "{host}"), read)
    docker: Program = request.getfixturevalue("docker")
    return Tool(
        lambda account: replace(docker, home=account.home, environment={**docker.environment, **account.environment}),
        ("login", *_AS_USER, "{host}"), ("logout", "{host}"), ("pull", "{image}"),
    )  # fmt: skip


def test_our_login_serves_others(account: Account, tool: Tool) -> None:
    """Until we log out; before and after, they are nobody."""
    assert not tool.reads(account)
    account.log_in()
    assert account.is_in()
    assert tool.reads(account)
    account.moorage("logout", account.host)
    assert not account.is_in()
    assert not tool.reads(account)


def test_our_login_in_podmans_file_serves_others(account: Account, container_store: tuple[str, ...]) -> None:
    """Where that is the file in use."""
    file = Path(account.environment["XDG_RUNTIME_DIR"]) / "containers" / "auth.json"
    file.parent.mkdir()
    file.write_text('{"auths": {"other.example": {"auth": "eDp5"}}}')
    account.log_in()
    assert not account.config.exists()
    assert set(json.loads(file.read_text())["auths"]) == {"other.example", account.host}
    assert _SKOPEO.reads(account)
    assert account.run(find("podman"), *container_store)("login", "--get-login", account.host).strip() == _USER
    account.moorage("logout", account.host)
    assert json.loads(file.read_text()) == {"auths": {"other.example": {"auth": "eDp5"}}}


def test_the_login_of_others_serves_us(account: Account, tool: Tool) -> None:
    """Until they log out."""
    account.config.parent.mkdir(parents=True)  # into an empty file docker puts whatever helper is installed
    account.config.write_text('{"auths": {"other.example": {"auth": "eDp5"}}}')
    assert not account.is_in()
    tool.log_in(account)
    assert account.is_in()
    explained = json.loads(account.moorage("explain-auth", "--json", f"{account.host}/{_IMAGE}"))
    assert explained["user"] == _USER
    tool.log_out(account)
    assert not account.is_in()


def test_a_pull_after_login(account: Account, tmp_path: Path) -> None:
    """All of an image, not only its tags."""
    account.log_in()
    account.moorage("pull", f"{account.host}/{_IMAGE}", "--unpack", tmp_path / "out")
    assert (tmp_path / "out" / "app" / "main").exists()


@pytest.fixture
def with_pass(account: Account) -> Iterator[Account]:
    """The same user with ``pass``, whose store a key of GnuPG encrypts."""
    find("docker-credential-pass")
    with tempfile.TemporaryDirectory(prefix="moorage-gpg-") as keys:  # a socket below it has a short name
        environment = account.environment | {"GNUPGHOME": keys, "PASSWORD_STORE_DIR": f"{account.home}/passwords"}
        owner = replace(account, environment=environment)
        key = ("--batch", "--passphrase", "", "--quick-generate-key", "alice@example.org")
        owner.run(find("gpg"))(*key, "default", "default", "never")
        owner.run(find("pass"))("init", "alice@example.org")
        yield owner
        owner.run(find("gpgconf"))("--kill", "all")


@pytest.mark.parametrize("setting", ["credsStore", "credHelpers"])
def test_a_real_helper_keeps_the_login(with_pass: Account, docker: Program, setting: str) -> None:
    """docker-credential-pass: we give, docker takes; docker gives, we take; nobody leaves a password in the file."""
    account = with_pass
    account.config.parent.mkdir(parents=True)
    account.config.write_text(json.dumps({setting: "pass" if setting == "credsStore" else {account.host: "pass"}}))
    helper = account.run(find("docker-credential-pass"))
    theirs = replace(docker, home=account.home, environment={**docker.environment, **account.environment})
    account.log_in()
    assert json.loads(helper("list")) == {account.host: _USER}
    assert json.loads(account.config.read_text())["auths"] == {account.host: {}}
    assert account.is_in()
    theirs("pull", f"{account.host}/{_IMAGE}")
    if setting == "credHelpers":  # skopeo does not know credsStore
        assert _SKOPEO.reads(account)
    theirs("logout", account.host)
    assert not account.is_in()
    theirs("login", *_AS_USER, account.host, stdin=_PASSWORD.encode())
    assert account.is_in()
    assert "'pass'" in account.moorage("explain-auth", f"{account.host}/{_IMAGE}")
    account.moorage("logout", account.host)
    assert not account.is_in()
    assert json.loads(helper("list")) == {}
    assert os.listdir(account.config.parent) == ["config.json"]
