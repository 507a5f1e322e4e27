"""``moorage login --oidc``, as a process: the job's own token is found where its CI system puts it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from moorage.puller.commands.ci_tokens import find_token
from moorage.puller.credentials import Credentials
from moorage.puller.errors import BadAnswer, CredentialsUnusable
from moorage.puller.transport import Transport

from tests.forge import forge
from tests.scripted import Reply, Scripted, Seen, scripted

_MAIN = [sys.executable, "-c", "from moorage.puller.cli import main; main()"]
_TOKEN = forge({"alg": "RS256"}, {"aud": "moorage", "exp": 1_800_000_000}, lambda _: b"signature")
_OURS = Credentials("oidc", _TOKEN).basic


async def _login(home: Path, *words: str, variables: Mapping[str, str], status: int = 0) -> tuple[str, str]:
    """What it prints; never the token."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MOORAGE", "XDG", "DOCKER"))}
    environment = {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), **variables}
    done = await asyncio.to_thread(
        subprocess.run, [*_MAIN, "login", "--oidc", *words], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status, done.stderr
    assert _TOKEN.split(".")[2] not in done.stdout + done.stderr
    assert "bearer-of-the-job" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def _saved(home: Path, host: str) -> str:
    document = json.loads((home / ".docker" / "config.json").read_text())
    return base64.b64decode(document["auths"][host]["auth"]).decode()


def _answer(seen: Seen) -> Reply:
    """A registry that wants a password, and GitHub's service beside it."""
    if not seen.target.startswith("/github"):
        is_ours = seen.headers.get("authorization") == _OURS
        return Reply(200) if is_ours else Reply(401, headers={"www-authenticate": 'Basic realm="r"'})
    if seen.headers.get("authorization") != "Bearer bearer-of-the-job":
        return Reply(401)
    if "broken" in seen.target:
        return Reply(200, b"{}")
    return Reply(200, json.dumps({"count": 1, "value": _TOKEN}).encode())


def _github(server: Scripted, path: str = "/github?api-version=2.0") -> dict[str, str]:
    return {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{server.url}{path}",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "bearer-of-the-job",
    }


@pytest.mark.parametrize(("words", "audience"), [((), None), (("--audience", "my registry&x"), "my registry&x")])
async def test_github(tmp_path: Path, words: tuple[str, ...], audience: str | None) -> None:
    """The job's service is asked for a token for the registry, or for whom we say; it is kept for docker."""
    async with scripted(_answer) as server:
        out, err = await _login(tmp_path, server.host, *words, variables=_github(server))
        asked = parse_qs(urlsplit(server.seen[0].target).query)
        assert asked == {"api-version": ["2.0"], "audience": [audience or server.host]}
        assert out.splitlines() == [
            f"logged in to {server.host} as oidc, kept in {tmp_path}/.docker/config.json",
            "the job's token is good until 2027-01-15 08:00:00 UTC; what it started may go on",
        ]
        assert err == ""
        assert _saved(tmp_path, server.host) == f"oidc:{_TOKEN}"


async def test_gitlab_and_kubernetes(tmp_path: Path) -> None:
    """A variable that holds the token, or names a file with it; the variable goes first, and GitHub is not asked."""
    (tmp_path / "token").write_text(f"{_TOKEN}\n")
    wrong = str(tmp_path / "none")
    async with scripted(_answer) as server:
        for variables in (
            {"MOORAGE_OIDC_TOKEN": f" {_TOKEN}\n", "MOORAGE_OIDC_TOKEN_FILE": wrong},
            {"MOORAGE_OIDC_TOKEN_FILE": str(tmp_path / "token")},
        ):
            await _login(tmp_path, server.host, variables={**_github(server), **variables})
            assert _saved(tmp_path, server.host) == f"oidc:{_TOKEN}"
        assert not [seen for seen in server.seen if "github" in seen.target]


async def test_a_token_that_the_registry_refuses(tmp_path: Path) -> None:
    """Is not kept; one line."""
    async with scripted(_answer) as server:
        other = forge({"alg": "RS256"}, {"aud": "elsewhere"}, lambda _: b"s")
        _, err = await _login(tmp_path, server.host, variables={"MOORAGE_OIDC_TOKEN": other}, status=1)
        assert len(err.splitlines()) == 1
        assert "oidc" in err
        assert not (tmp_path / ".docker").exists()


@pytest.mark.parametrize(
    ("variables", "audience", "complaint"),
    [
        pytest.param({}, None, "on GitHub give it 'permissions: id-token: write'; on GitLab an id_token", id="none"),
        pytest.param({"MOORAGE_OIDC_TOKEN": _TOKEN}, "x", "is for 'moorage', not for 'x'", id="aud"),
        pytest.param({"MOORAGE_OIDC_TOKEN": "two words"}, None, "MOORAGE_OIDC_TOKEN: there is no token", id="audience"),
        pytest.param({"MOORAGE_OIDC_TOKEN_FILE": "/none"}, None, "No such file", id="no file"),
        pytest.param({"MOORAGE_OIDC_TOKEN_FILE": "/dev/null"}, None, "/dev/null: there is no token", id="empty file"),
        pytest.param(
            {"ACTIONS_ID_TOKEN_REQUEST_URL": "http://github.example/?canary", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "t"},
            None,
            "ACTIONS_ID_TOKEN_REQUEST_URL is not https",
            id="no https",
        ),
        pytest.param(
            {"ACTIONS_ID_TOKEN_REQUEST_URL": "https://github.example/"}, None, "id-token: write", id="no bearer"
        ),
    ],
)
async def test_a_job_without_a_token(variables: dict[str, str], audience: str | None, complaint: str) -> None:
    """Learns in one line what to do; nobody is asked."""
    async with Transport() as transport:
        with pytest.raises((CredentialsUnusable, OSError), match=complaint) as caught:
            await find_token(variables, transport, registry="r.example", audience=audience)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "bearer", "complaint"),
    [
        ("/github", "wrong", "GitHub gave no token for 'r.example': it answered 401"),
        ("/github/broken", "bearer-of-the-job", "GitHub answered without a token"),
    ],
)
async def test_github_gives_none(path: str, bearer: str, complaint: str) -> None:
    """Nor anything else that could be shown to a registry."""
    async with scripted(_answer) as server, Transport() as transport:
        variables = _github(server, path) | {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": bearer}
        with pytest.raises(BadAnswer, match=complaint):
            await find_token(variables, transport, registry="r.example", audience=None)
        assert [seen.target for seen in server.seen] == [f"{path}?audience=r.example"]


@pytest.mark.parametrize(
    "words",
    [
        ("--oidc", "-u", "alice", "r.example"),
        ("--oidc", "--password-stdin", "r.example"),
        ("--audience", "x", "r.example"),
    ],
)
def test_what_contradicts_itself(words: tuple[str, ...]) -> None:
    """Is wrong usage."""
    done = subprocess.run([*_MAIN, "login", *words, "r.example"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
