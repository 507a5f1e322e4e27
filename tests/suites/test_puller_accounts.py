"""``moorage login``, ``logout`` and ``explain-auth``, as processes, against a registry that wants a password."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qsl, urlsplit

import pytest
from moorage.puller.credentials import Credentials
from moorage.registry.testing import LoopbackRegistry

from tests.scripted import Reply, Scripted, Seen, scripted

_MAIN = [sys.executable, "-c", "from moorage.puller.cli import main; main()"]
_NONE: Mapping[str, str] = MappingProxyType({})
_ALICE = Credentials("alice", "s3cret")


class Home:
    """A user's home, where the program is run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / ".docker" / "config.json"

    async def __call__(
        self, *words: str, stdin: str = "", status: int = 0, variables: Mapping[str, str] = _NONE
    ) -> tuple[str, str]:
        """What it prints on stdout and stderr."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MOORAGE", "XDG", "DOCKER"))}
        environment = {**kept, "HOME": str(self.path), "XDG_RUNTIME_DIR": str(self.path / "run"), **variables}
        done = await asyncio.to_thread(
            subprocess.run, [*_MAIN, *words], env=environment, input=stdin, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == status, done.stderr
        assert "s3cret" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def _with_tokens(server: list[Scripted]) -> object:
    def answer(seen: Seen) -> Reply:
        is_alice = seen.headers.get("authorization") == _ALICE.basic
        if seen.target.startswith("/token"):
            return Reply(200, b'{"token": "t"}') if is_alice else Reply(401)
        if seen.headers.get("authorization") == "Bearer t":
            return Reply(200, b'{"name": "a/b", "tags": ["v1"]}')
        challenge = f'Bearer realm="{server[0].url}/token",service="s",scope="repository:user/image:pull"'
        return Reply(401, headers={"www-authenticate": challenge})

    return answer


def _with_basic(seen: Seen) -> Reply:
    is_alice = seen.headers.get("authorization") == _ALICE.basic
    return Reply(200) if is_alice else Reply(401, headers={"www-authenticate": 'Basic realm="r"'})


async def test_login_use_explain_logout(home: Home) -> None:
    """The whole life of a login at a registry with tokens."""
    servers: list[Scripted] = []
    async with scripted(_with_tokens(servers)) as server:  # type: ignore[arg-type]
        servers.append(server)
        out, err = await home("login", "-u", "alice", "--password-stdin", server.host, stdin="s3cret\n")
        assert out == f"logged in to {server.host} as alice, kept in {home.config}\n"
        assert err == ""
        token = next(seen for seen in server.seen if seen.target.startswith("/token"))
        assert dict(parse_qsl(urlsplit(token.target).query)) == {"service": "s", "account": "alice"}
        assert (await home("tags", f"{server.host}/a/b"))[0] == "v1\n"
        out, _ = await home("explain-auth", f"{server.host}/a/b")
        assert out.splitlines()[0] == f"http://{server.host}, repository a/b: logs in as alice"
        assert f"  used:           file {home.config}: its entry '{server.host}' (alice)" in out.splitlines()
        document = json.loads((await home("explain-auth", "--json", f"{server.host}/a/b"))[0])
        assert (document["user"], [place["outcome"] for place in document["places"]].count("used")) == ("alice", 1)
        assert (await home("logout", server.host))[0].startswith(f"logged out of {server.host}, forgotten in")
        assert (await home("logout", server.host))[0] == f"nobody was logged in to {server.host}\n"
        _, err = await home("tags", f"{server.host}/a/b", status=1)
        assert "nobody is logged in (moorage login" in err
        assert len(err.splitlines()) == 1


async def test_a_wrong_password_is_not_kept(home: Home) -> None:
    """Neither with Basic nor with tokens; one line says who refused whom."""
    servers: list[Scripted] = []
    for answer in (_with_basic, _with_tokens(servers)):
        async with scripted(answer) as server:  # type: ignore[arg-type]
            servers[:] = [server]
            _, err = await home("login", "-u", "alice", "--password-stdin", server.host, stdin="wrong", status=1)
            assert len(err.splitlines()) == 1
            assert not home.config.exists()


async def test_a_registry_that_asks_nothing(home: Home) -> None:
    """Is told apart: the login is kept, unchecked, and that is said."""
    async with scripted(lambda seen: Reply(200)) as server:
        _, err = await home("login", "-u", "alice", "--password-stdin", server.host, stdin="s3cret\r\n")
        assert "the password could not be checked" in err
        assert "authorization" not in server.seen[0].headers
    assert json.loads(home.config.read_text())["auths"][server.host]["auth"] == _ALICE.basic.removeprefix("Basic ")


async def test_what_goes_first_is_said(home: Home) -> None:
    """A login that another one hides, or that a variable still gives after logout."""
    async with scripted(_with_basic) as server:
        variables = {"MOORAGE_REGISTRY": server.host, "MOORAGE_USERNAME": "bob", "MOORAGE_PASSWORD": "x"}
        words = ("login", "-u", "alice", "--password-stdin", server.host)
        _, err = await home(*words, stdin="s3cret", variables=variables)
        assert err.endswith("MOORAGE_PASSWORD: a login from there is used before this one\n")
        _, err = await home("logout", server.host, variables=variables)
        assert "a login from there is still used" in err


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (["-u", "alice", "r.example"], "s3cret", "use --password-stdin"),
        (["--password-stdin", "r.example"], "s3cret", "needs --username"),
        (["-u", "a:b", "--password-stdin", "r.example"], "s3cret", "has no colon in it"),
        (["-u", "alice", "--password-stdin", "r.example"], "\n", "no password on stdin"),
        (["-u", "alice", "--password-stdin", "ubuntu"], "s3cret", "not a registry"),
        (["-u", "alice", "--password-stdin", "r.example/a"], "s3cret", "not a registry"),
        (["-u", "alice", "-p", "s3cre", "r.example"], "", "No such option"),
    ],
)
async def test_wrong_usage(home: Home, words: list[str], stdin: str, said: str) -> None:
    """Exit status 2; a password on the command line is not even an option."""
    _, err = await home("login", *words, stdin=stdin, status=2)
    assert said in err


async def test_mirrors_and_remarks_are_explained(home: Home) -> None:
    """Each registry that will be asked, and what is unsafe about the way there."""
    (home.path / "hosts.toml").write_text(
        '["docker.io"]\nmirrors = ["m.example:5000/hub"]\n["m.example:5000"]\nplain_http = true\n'
    )
    out, _ = await home("explain-auth", "alpine", variables={"MOORAGE_CONFIG_DIR": str(home.path)})
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert heads == [
        "http://m.example:5000, repository hub/library/alpine: logs in as nobody",
        "https://registry-1.docker.io, repository library/alpine: logs in as nobody",
    ]
    assert "crosses the network in the open" in out


def test_login_asks_on_a_terminal(home: Home, registry: LoopbackRegistry) -> None:
    """For the user, and for the password without showing it."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "HOME": str(home.path), "XDG_RUNTIME_DIR": str(home.path), "DOCKER_CONFIG": ""}
    process = subprocess.Popen(
        [*_MAIN, "login", registry.host], env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    shown = ""
    answers = {"User for": "alice\n", "Password": "s3cret\n"}
    with contextlib.suppress(OSError):  # the terminal is gone with its last user
        while chunk := os.read(ours, 4096).decode():
            shown += chunk
            for question in [question for question in answers if question in shown]:
                while question == "Password" and termios.tcgetattr(ours)[3] & termios.ECHO:
                    time.sleep(0.01)
                os.write(ours, answers.pop(question).encode())
    os.close(ours)
    assert process.wait(60) == 0, shown
    assert f"logged in to {registry.host} as alice" in shown
    assert "s3cret" not in shown
    assert json.loads(home.config.read_text())["auths"][registry.host]["auth"] == _ALICE.basic.removeprefix("Basic ")
