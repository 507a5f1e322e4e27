"""What ``config check`` says about a login: what cannot be used, and what is dangerous."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
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


POLICY = """\
{accounts}
groups:
  readers: [alice, bob, "robot:ci"]
rules:
  - {{name: team, who: [alice, alcie, "group:readers", "robot:ci", "c*", "*"], repositories: ["**"], actions: [pull]}}
"""


def test_names_that_nobody_has(accounts: Path, tmp_path: Path) -> None:
    """Who gets an account of the name gets what was meant for another one: rules and groups, each name once."""
    file = tmp_path / "auth.yaml"
    file.write_text(POLICY.format(accounts=f"htpasswd: {accounts}"))
    file.chmod(0o644)
    first, second = warnings_of(check("--auth", file, "--root", tmp_path / "root"))
    assert first.startswith(f"the rule 'team' names the account alcie, which is not in {accounts}:")
    assert second.startswith(f"the group 'readers' names the account bob, which is not in {accounts}:")
    file.write_text(POLICY.format(accounts=""))
    found = warnings_of(check("--auth", file, "--root", tmp_path / "root"))
    assert len(found) == 4
    assert all("there are no accounts" in warning for warning in found)


BUNDLES = """\
certificates: ours.pem
token_issuers:
  - {name: old, issuer: issuer.test, service: here, certificates: theirs.pem, repositories: ["**"]}
"""


def certificate(name: str, days: int) -> bytes:
    """One that ends in so many days, and an hour."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(subject, subject, key.public_key(), serial_number=x509.random_serial_number())
    built = built.not_valid_before(now - timedelta(days=99)).not_valid_after(now + timedelta(days=days, hours=1))
    return built.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_certificates_that_end(tmp_path: Path) -> None:
    """Thirty days before and after: not one that has a successor; tokens would be refused overnight."""
    theirs = [certificate("gone", -2), certificate("soon", 29), certificate("later", 31)]
    theirs += [certificate("renewed", 5), certificate("renewed", 300)]
    (tmp_path / "theirs.pem").write_bytes(b"".join(theirs))
    (tmp_path / "ours.pem").write_bytes(certificate("ours", 3))
    (tmp_path / "auth.yaml").write_text(BUNDLES)
    (tmp_path / "auth.yaml").chmod(0o644)
    gone, soon, ours = warnings_of(check("--auth", tmp_path / "auth.yaml", "--root", tmp_path / "root"))
    assert f"{tmp_path}/theirs.pem: the certificate of CN=gone" in gone
    assert " ended on 20" in gone
    assert "the tokens of 'old' that it vouches for are refused" in gone
    assert "CN=soon" in soon
    assert " ends on 20" in soon
    assert f"{tmp_path}/ours.pem: the certificate of CN=ours" in ours


@pytest.mark.parametrize("file", ["ours.pem", "theirs.pem"])
def test_a_bundle_without_certificates(tmp_path: Path, file: str) -> None:
    """What serve would refuse is not called good."""
    for name in ("ours.pem", "theirs.pem"):
        (tmp_path / name).write_bytes(certificate("good", 300))
    (tmp_path / file).write_text("no certificate")
    (tmp_path / "auth.yaml").write_text(BUNDLES)
    result = check("--auth", tmp_path / "auth.yaml", "--root", tmp_path / "root")
    assert result.exit_code == 1
    assert result.stderr == f"moorage: {tmp_path}/{file}: there is no certificate in it, or a damaged one (PEM)\n"


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
