"""Apache's ``htpasswd`` and ``moorage user`` keep the same file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from moorage.auth.errors import BadCredentials, ConfigurationError
from moorage.auth.htpasswd import Htpasswd
from moorage.auth.htpasswd_writer import change_account, hash_password
from moorage.auth.passwords import Passwords

pytestmark = pytest.mark.interop


def _htpasswd(*arguments: str, password: str) -> int:
    """Apache's program, with the password from stdin; returns its status."""
    command = ["htpasswd", "-i", *arguments]
    return subprocess.run(command, input=password.encode(), capture_output=True, timeout=60).returncode


async def test_files_of_theirs_are_read(tmp_path: Path) -> None:
    """bcrypt with a cost of 10, one account made, one added, one changed."""
    file = str(tmp_path / "accounts")
    assert _htpasswd("-c", "-B", "-C", "10", file, "alice", password="correct horse") == 0
    assert _htpasswd("-B", "-C", "10", file, "bob", password="battery staple") == 0
    assert _htpasswd("-B", "-C", "11", file, "alice", password="another one") == 0
    passwords = Passwords()
    try:
        await passwords.check(Htpasswd.load(file), "alice", "another one")
        await passwords.check(Htpasswd.load(file), "bob", "battery staple")
        with pytest.raises(BadCredentials):
            await passwords.check(Htpasswd.load(file), "alice", "correct horse")
    finally:
        passwords.close()


@pytest.mark.parametrize("kind", ["-m", "-s", "-d", "-p", "-B"])
def test_their_weaker_hashes_are_refused(tmp_path: Path, kind: str) -> None:
    """T13: MD5, SHA-1, crypt, plain text, and bcrypt with the cost of 5 that it takes unless told otherwise."""
    file = str(tmp_path / "accounts")
    assert _htpasswd("-c", kind, file, "alice", password="horse") == 0
    with pytest.raises(ConfigurationError, match=r"line 1: the password of alice .* set it anew with `moorage user"):
        Htpasswd.load(file)


def test_ours_are_read_by_theirs(tmp_path: Path) -> None:
    """What we write is verified there; a disabled account's password is refused there too."""
    file, hashed = str(tmp_path / "accounts"), hash_password("correct horse")
    change_account(file, "alice", lambda _: hashed)
    change_account(file, "bob", lambda _: f"!{hashed}")
    assert _htpasswd("-v", file, "alice", password="correct horse") == 0
    assert _htpasswd("-v", file, "alice", password="battery staple") != 0
    assert _htpasswd("-v", file, "bob", password="correct horse") != 0
