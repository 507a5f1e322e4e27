"""The server's verbs: what they print, and with which status they end."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from moorage.registry import cli
from moorage.registry.settings import Address, Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MOORAGE_")]:
        monkeypatch.delenv(name)


def _check(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli.config, ["check", *arguments], env=environment)


def test_check_shows_every_setting_and_its_source() -> None:
    """One line per setting, with what it is and where that comes from."""
    result = _check("--workers", "3", MOORAGE_ROOT="/images")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == len(Settings.__struct_fields__)
    assert "workers: 3  (flag --workers)" in result.stdout
    assert "root: /images  (variable MOORAGE_ROOT)" in result.stdout
    assert "listen: 127.0.0.1:5000  (default)" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        pytest.param("--no-access-log", "access_log: False", id="no access log"),
        pytest.param("--access-log", "access_log: True", id="access log"),
        pytest.param("--read-only", "read_only: True", id="read-only"),
        pytest.param("--no-delete", "no_delete: True", id="no delete"),
        pytest.param("--allow-sparse", "allow_sparse: True", id="sparse"),
        pytest.param("--no-redirect", "redirect: False", id="no redirect"),
        pytest.param("--redirect", "redirect: True", id="redirect"),
    ],
)
def test_switches(flag: str, line: str) -> None:
    """A switch that is given counts as given, one that is not leaves the other sources their say."""
    assert f"{line}  (flag " in _check(flag, MOORAGE_READ_ONLY="false").stdout
    assert "read_only: True  (variable" in _check(MOORAGE_READ_ONLY="true").stdout


def test_check_refuses_what_serve_would_refuse(tmp_path: Path) -> None:
    """Wrong usage is status 2, a certificate that cannot be used status 1, each in one line."""
    for arguments, status in ((("--workers", "none"), 2), (("--tls-cert", "/none", "--tls-key", "/none"), 1)):
        result = _check(*arguments)
        assert result.exit_code == status
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith("moorage: ")


@pytest.mark.parametrize(
    ("listen", "count"),
    [
        pytest.param("127.0.0.1:5000", 0, id="loopback"),
        pytest.param("[::1]:5000", 0, id="loopback of IPv6"),
        pytest.param("localhost:5000", 0, id="localhost"),
        pytest.param("0.0.0.0:5000", 2, id="everywhere"),
        pytest.param("192.0.2.1:5000", 2, id="an address of the network"),
    ],
)
def test_an_open_door_is_warned_of(listen: str, count: int) -> None:
    """Beyond loopback there is neither a login nor TLS, and the operator should know."""
    result = _check("--listen", listen)
    assert result.exit_code == 0
    assert result.stderr.count("warning: ") == count


def test_a_readable_key_is_warned_of(tmp_path: Path) -> None:
    """A private key that others may read is not private."""
    for name in ("cert", "key"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o644)
    result = _check("--tls-cert", str(tmp_path / "cert"), "--tls-key", str(tmp_path / "key"))
    assert "cannot use the certificate" in result.stderr
    (tmp_path / "key").chmod(0o600)
    assert cli._warnings(Settings(tls_cert="c", tls_key=str(tmp_path / "key"))) == []
    (tmp_path / "key").chmod(0o640)
    (warning,) = cli._warnings(Settings(tls_cert="c", tls_key=str(tmp_path / "key")))
    assert "chmod 600" in warning


@pytest.mark.parametrize(
    ("root", "listen", "redirect", "words"),
    [
        pytest.param(
            "s3://b?endpoint=http://minio:9000", "0.0.0.0:5000", True, "add public_endpoint", id="a short name"
        ),
        pytest.param("s3://b?endpoint=http://127.0.0.1:1", "0.0.0.0:5000", True, "add public_endpoint", id="loopback"),
        pytest.param("s3://b?endpoint=https://127.0.0.1:1", "127.0.0.1:5000", True, None, id="all on one machine"),
        pytest.param("s3://b?endpoint=http://minio:9000", "0.0.0.0:5000", False, None, id="no redirects"),
        pytest.param("s3://b?endpoint=https://s3.example.org", "0.0.0.0:5000", True, None, id="a full name"),
        pytest.param("s3://b?endpoint=https://[2001:db8::1]:9000", "0.0.0.0:5000", True, None, id="an address"),
        pytest.param("s3://b?region=eu-west-1", "0.0.0.0:5000", True, None, id="AWS"),
        pytest.param("/srv/images", "0.0.0.0:5000", True, None, id="a directory"),
        pytest.param(
            "s3://b?endpoint=http://minio:9000&public_endpoint=https://s3.example.org",
            *("0.0.0.0:5000", True, None),
            id="a public name",
        ),
        pytest.param(
            "s3://b?endpoint=http://10.0.0.1:9000",
            "0.0.0.0:5000",
            True,
            "sent on to http://10.0.0.1:9000",
            id="plain HTTP",
        ),
    ],
)
def test_redirects_to_nowhere_are_warned_of(root: str, listen: str, redirect: bool, words: str | None) -> None:
    """A client is sent where the S3 server's name leads it: one that only we can reach helps nobody."""
    host, _, port = listen.rpartition(":")
    settings = Settings(root=root, listen=Address(host, int(port)), redirect=redirect, tls_cert="c", tls_key="k")
    found = [warning for warning in cli._warnings(settings) if "no-redirect" in warning]
    assert any(words in warning for warning in found) if words else found == []


def test_a_log_line_stays_a_line() -> None:
    """What a client smuggles into a message cannot look like a line of ours; tracebacks keep theirs."""
    record = logging.LogRecord("n", logging.WARNING, "f", 1, "bad \x1b[31m name\nINFO all is well", None, None)
    text = cli._OneLine("%(levelname)s %(message)s").format(record)
    assert text == "WARNING bad \\x1b[31m name\\nINFO all is well"
