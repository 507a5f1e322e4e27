"""T2: nothing that ships holds a secret, so there is none that everybody knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from moorage.auth.secret import SECRET_PATTERN
from moorage.registry import cli
from moorage.registry.accounts_cli import auth

_ROOT = Path(__file__).parents[2]
_SHIPPED = ("auth", "puller", "registry", "storage_backends", "deploy", "README.md", "SECURITY.md", "pyproject.toml")
_SECRETS = {
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{16}",
    "bcrypt hash": r"\$2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{53}",
    "secret of ours": rf"\b{SECRET_PATTERN}\b",
    # a value that a name like this is given: not empty, no variable, no dots that say "yours"
    "value": (
        r"(?im)^[^#\n]*(?:PASSWORD|SECRET(?:_ACCESS)?(?:_KEY)?)[\"']?\s*[:=]\s*[\"']?[A-Za-z0-9+/]{6,}[\"']?\s*$"
    ),
}


def _texts() -> Iterator[tuple[Path, str]]:
    for name in _SHIPPED:
        place = _ROOT / name
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if path.is_file() and path.suffix not in (".pyc", ".typed") and "__pycache__" not in path.parts:
                yield path, path.read_text("utf-8")


@pytest.mark.parametrize("kind", _SECRETS)
def test_nothing_that_ships_holds_a_secret(kind: str) -> None:
    """Keys, hashes, secrets and passwords: not in the code, the recipes or the documentation."""
    found = [path for path, text in _texts() if re.search(_SECRETS[kind], text)]
    if kind == "value":  # in code such names are given values that are no secrets
        found = [path for path in found if path.suffix != ".py"]
    assert found == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("private key", "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1h"),
        ("bcrypt hash", "alice:$2y$10$" + "." * 53),
        ("secret of ours", 'password = "mrg_' + "a" * 46 + '"'),
        ("value", "      MINIO_ROOT_PASSWORD: minioadmin\n"),
        ("value", "export AWS_SECRET_ACCESS_KEY=abcdefgh"),
    ],
)
def test_the_search_finds_them(kind: str, text: str) -> None:
    """The measure itself."""
    assert re.search(_SECRETS[kind], text)


@pytest.mark.parametrize(
    "sample",
    [
        "htpasswd: CHANGEME",
        "issuers: [{name: ci, url: https://issuer.example.com, audience: me}]",
        "issuers: [{name: ci, url: https://ci.acme.test, audience: <your registry>}]",
        "issuers: [{name: ci, url: https://ci.acme.test, audience: your-registry}]",
    ],
)
def test_a_sample_that_was_left_in_refuses_to_start(tmp_path: Path, sample: str) -> None:
    """Status 1 and one line that says so, from whichever verb reads the file first."""
    file = tmp_path / "auth.yaml"
    file.write_text(sample)
    for command, arguments in ((cli.config, ["check"]), (cli.serve, []), (auth, ["test", "alice", "apps"])):
        result = CliRunner().invoke(command, [*arguments, "--root", str(tmp_path / "root"), "--auth", str(file)])
        assert result.exit_code == 1, result.output
        (line,) = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
        assert "sample" in line
