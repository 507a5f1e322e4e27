"""``moorage auth rotate-key``: the file of keys changes, and nothing that was signed is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from moorage.auth.keys import KeyRing
from moorage.registry.accounts_cli import auth


def _rotate(*words: str, status: int = 0) -> Result:
    done = CliRunner().invoke(auth, ["rotate-key", *words])
    assert done.exit_code == status, done.output
    assert "PRIVATE" not in done.output
    return done


@pytest.mark.parametrize("word", ["--root", "--signing-key"])
def test_the_next_key_signs(tmp_path: Path, word: str) -> None:
    """The file is named, or found beside the root."""
    ring = KeyRing.create(str(tmp_path / "data.key"))
    current, following = (key["kid"] for key in ring.jwks()["keys"])
    done = _rotate(word, str(tmp_path / ("data" if word == "--root" else "data.key")))
    assert f"the key {following} signs now" in done.output
    kids = [key["kid"] for key in KeyRing(str(tmp_path / "data.key")).jwks()["keys"]]
    assert (kids[0], kids[2]) == (following, current)


def test_a_key_that_stands_alone(tmp_path: Path) -> None:
    """Goes on signing: the next one is shown to everybody first."""
    path = tmp_path / "data.key"
    ring = KeyRing.create(str(path))
    path.write_bytes(ring.current().signing.to_pem())
    alone = KeyRing(str(path)).current().signing.kid
    assert "rotate again when every server has seen it" in _rotate("--signing-key", str(path)).output
    assert KeyRing(str(path)).current().signing.kid == alone


def test_what_cannot_be_rotated(tmp_path: Path) -> None:
    """One line that says what is wrong, and nothing is made."""
    done = _rotate("--signing-key", str(tmp_path / "none"), status=1)
    assert done.output == f"moorage: cannot read {tmp_path}/none: No such file or directory\n"
    assert list(tmp_path.iterdir()) == []
