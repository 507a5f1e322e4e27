"""``moorage serve --htpasswd``: workers that know each other's tokens, a key that is made once, no secret anywhere."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.accounts import hashed
from tests.servers import MoorageProcess

PASSWORD = "canary-password-7f3a"
WRONG = "canary-mistake-91bc"
WORKERS = 4


@pytest.fixture
def accounts(tmp_path: Path) -> Path:
    """One account."""
    file = tmp_path / "accounts"
    file.write_text(f"alice:{hashed(PASSWORD)}\n")
    file.chmod(0o600)
    return file


def basic(password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"alice:{password}".encode()).decode()}


def token_of(url: str, scope: str) -> str:
    answer = httpx.get(
        f"{url}/token", params={"service": "moorage", "scope": scope}, headers=basic(PASSWORD), timeout=60
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["token"])


def workers_of(url: str) -> Iterator[tuple[str, httpx.Client]]:
    """Connections, each kept open, with who is at their other end: whoever has fewest takes the next one."""
    with ExitStack() as stack:
        for _ in range(64):
            client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
            yield client.get("/healthz").headers["x-request-id"].partition("-")[0], client


def test_a_token_of_one_worker_is_good_at_every_other(accounts: Path, tmp_path: Path) -> None:
    """They have one key, made before they were forked, with mode 0600; uploads move between them as well."""
    root = tmp_path / "root"
    with MoorageProcess(root, "--htpasswd", str(accounts), workers=WORKERS) as server:
        headers = {"authorization": f"Bearer {token_of(server.url, 'repository:a/b:pull,push')}"}
        began = httpx.post(f"{server.url}/v2/a/b/blobs/uploads/", headers=headers, timeout=60)
        location = began.headers["location"]
        met: set[str] = set()
        for worker, client in workers_of(server.url):
            met.add(worker)
            assert client.get("/v2/", headers=headers).status_code == 200
            assert client.get(location, headers=headers).status_code == 204
            if len(met) == WORKERS:
                break
        assert len(met) > 1, "all connections met one worker"
        assert server.errors.count(f"made the signing key {root}.key (keep it") == 1
        assert "Log in: moorage login 127.0.0.1:" in server.errors
    key = tmp_path / "root.key"
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    before = key.read_bytes()
    with MoorageProcess(root, "--htpasswd", str(accounts)) as server:
        assert httpx.get(f"{server.url}/v2/", headers=headers, timeout=60).status_code == 200, "also after a restart"
        assert "signing key" not in server.errors
    assert key.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["accounts", "root", "root.key"]


def test_t8_no_secret_is_written_down(accounts: Path, tmp_path: Path) -> None:
    """T8: passwords, wrong ones, tokens and refresh tokens stand in no log, metric or error, whatever they came in."""
    log, audit = tmp_path / "access.log", tmp_path / "audit.log"
    arguments = ("--htpasswd", str(accounts), "--audit-log", str(audit), "--log-level", "debug", "--drain-delay", "0")
    seen: list[str] = []
    with (
        MoorageProcess(tmp_path / "root", *arguments, log=log) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        token = token_of(server.url, "repository:a/b:pull,push")
        form = {"grant_type": "password", "username": "alice", "password": PASSWORD, "access_type": "offline"}
        refresh = client.post("/token", data=form).json()["refresh_token"]
        secrets = [
            PASSWORD,
            WRONG,
            token,
            token.split(".")[2],
            refresh,
            base64.b64encode(b"alice:" + PASSWORD.encode()),
        ]
        answers = [
            client.get("/v2/a/b/tags/list", headers={"authorization": f"Bearer {token}"}),
            client.get("/v2/a/b/tags/list", headers={"authorization": f"Bearer {token[:-3]}"}),
            client.get("/v2/", headers=basic(PASSWORD)),
            client.get("/v2/", headers=basic(WRONG)),
            client.get("/token", headers=basic(WRONG)),
            client.get("/token", headers={"authorization": f"Bearer {token}"}),
            client.get("/token", params={"password": PASSWORD, "token": token, "scope": "repository:a/b:pull"}),
            client.get("/v2/", params={"access_token": token, "password": WRONG}),
            client.post("/token", data={**form, "password": WRONG}),
            client.post("/token", data={"grant_type": "refresh_token", "refresh_token": f"{refresh}x"}),
            client.post("/token", data={"grant_type": PASSWORD}),
            client.post("/token", content=PASSWORD.encode()),
            client.get("/metrics"),
        ]
        seen += [str(answer.headers) + answer.text for answer in answers]
        assert server.stop() == 0
    seen += [server.errors, log.read_text(), audit.read_text()]
    assert '"path":"/token"' in log.read_text()
    assert "wrong password" in server.errors
    for place, text in enumerate(seen):
        assert not [secret for secret in map(as_text, secrets) if secret in text], f"place {place}: {text}"


def as_text(secret: str | bytes) -> str:
    return secret.decode() if isinstance(secret, bytes) else secret


@pytest.mark.parametrize("wrong", ["accounts", "key", "configuration", "audit log"])
def test_what_is_wrong_is_said_once_and_nothing_starts(accounts: Path, tmp_path: Path, wrong: str) -> None:
    """One line that names the file, status 1, however many workers there would be: it fails closed."""
    arguments = ["--htpasswd", str(accounts)]
    match wrong:
        case "accounts":
            culprit = accounts
            accounts.write_text("alice:plain\n")
        case "key":
            culprit = tmp_path / "root.key"
            culprit.write_text("no key")
        case "configuration":
            culprit = tmp_path / "auth.yaml"
            culprit.write_text("ruels: []\n")
            arguments = ["--auth", str(culprit)]
        case _:
            culprit = tmp_path / "nowhere" / "audit"
            arguments += ["--audit-log", str(culprit)]
    program = str(Path(sys.executable).with_name("moorage"))
    command = [program, "serve", "--root", str(tmp_path / "root"), "--listen", "127.0.0.1:0", "--workers", "3"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")}
    done = subprocess.run([*command, *arguments], env=clean, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("made the signing key")]
    assert line.startswith("moorage: ")
    assert str(culprit) in line


def test_an_account_that_is_removed(accounts: Path, tmp_path: Path) -> None:
    """T5: who is taken out of the file is out, with a password and with a token, soon and without a restart."""
    with MoorageProcess(tmp_path / "root", "--htpasswd", str(accounts)) as server:
        bearer = {"authorization": f"Bearer {token_of(server.url, 'repository:a/b:pull')}"}
        accounts.write_text(f"bob:{hashed(PASSWORD)}\n")
        for login in (bearer, basic(PASSWORD)):  # one after the other: too many refused logins would be 429
            deadline = time.monotonic() + 50
            while (status := httpx.get(f"{server.url}/v2/", headers=login, timeout=60).status_code) == 200:
                assert time.monotonic() < deadline
            assert status == 401
