"""What ``config check`` says about a login: what cannot be used, and what is dangerous."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from moorage.registry import cli

from tests.accounts import hashed

SECRET = "a password of this test"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MOORAGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def accounts(tmp_path: Path) -> Path:
    """An htpasswd file in order."""
    file = tmp_path / "accounts"
    file.write_text(f"alice:{hashed(SECRET)}\n")
    file.chmod(0o600)
    return file


def check(*arguments: object) -> Result:
    return CliRunner().invoke(cli.config, ["check", *map(str, arguments)])


def warnings_of(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return [line.removeprefix("warning: ") for line in result.stderr.splitlines()]


def test_a_login_in_order_is_not_warned_of(accounts: Path, tmp_path: Path) -> None:
    """And looking makes no key: that is the first start's work."""
    result = check("--htpasswd", accounts, "--root", tmp_path / "root")
    assert warnings_of(result) == []
    assert f"htpasswd: {accounts}  (flag --htpasswd)" in result.stdout
    assert "trusted_proxies: none  (default)" in result.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["accounts"]


def test_an_open_network_with_a_login(accounts: Path, tmp_path: Path) -> None:
    """With a login nobody else may push; but without TLS it can be overheard."""
    (warning,) = warnings_of(check("--htpasswd", accounts, "--root", tmp_path / "r", "--listen", "0.0.0.0:5000"))
    assert "passwords" in warning
    assert "--tls-cert" in warning


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("--trusted-proxies", "0.0.0.0/0"), "names everybody", id="T12: everybody a proxy"),
        pytest.param(("--external-url", "http://registry.example.org"), "in the clear", id="login over http"),
    ],
)
def test_dangerous_settings(accounts: Path, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    """One warning each."""
    (warning,) = warnings_of(check("--htpasswd", accounts, "--root", tmp_path / "root", *arguments))
    assert words in warning


@pytest.mark.parametrize(
    ("mode", "words"),
    [(0o604, ["try passwords"]), (0o620, ["others may change"]), (0o666, ["others may change", "try passwords"])],
    ids=["readable", "writable", "both"],
)
def test_files_that_are_open_to_others(accounts: Path, tmp_path: Path, mode: int, words: list[str]) -> None:
    """Who can write the accounts is all of them; who can read them can guess without limits."""
    accounts.chmod(mode)
    found = warnings_of(check("--htpasswd", accounts, "--root", tmp_path / "root"))
    assert len(found) == len(words)
    assert all(word in warning for word, warning in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        pytest.param("{repositories: ['a/*'], actions: [pull]}", None, id="pull from some"),
        pytest.param("{repositories: ['**'], actions: [pull]}", "pull from every repository", id="pull from all"),
        pytest.param("{repositories: ['a/*'], actions: [pull, push]}", "may create, update in a/*", id="push"),
        pytest.param("{repositories: ['a/*'], actions: [delete]}", "may delete in a/*", id="delete"),
    ],
)
def test_what_anybody_may_do(tmp_path: Path, rule: str, words: str | None) -> None:
    """Anonymous changes are always warned of, anonymous pull where it is everywhere."""
    (tmp_path / "auth.yaml").write_text(f"anonymous: [{rule}]\n")
    (tmp_path / "auth.yaml").chmod(0o644)
    found = warnings_of(check("--auth", tmp_path / "auth.yaml", "--root", tmp_path / "root"))
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


@pytest.mark.parametrize("broken", ["accounts", "auth", "key", "nothing there"])
def test_what_serve_would_refuse(accounts: Path, tmp_path: Path, broken: str) -> None:
    """One line that names the file, and status 1."""
    arguments: list[object] = ["--htpasswd", accounts, "--root", tmp_path / "root"]
    match broken:
        case "accounts":
            accounts.write_text("alice:{SHA}nonsense\n")
            culprit = accounts
        case "auth":
            culprit = tmp_path / "auth.yaml"
            culprit.write_text("rools: []\n")
            arguments[:2] = ["--auth", culprit]
        case "key":
            culprit = tmp_path / "root.key"
            culprit.write_text("no key")
            culprit.chmod(0o600)
        case _:
            culprit = tmp_path / "none"
            arguments[:2] = ["--htpasswd", culprit]
    result = check(*arguments)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("moorage: ")
    assert str(culprit) in line
