"""Changes to the htpasswd file. Law: one account's line changes, everything else stays as it was, byte for byte.

The file is written aside and renamed, so that a server or a crash sees the old one or the new one; writers take turns
by a lock on its directory.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import bcrypt
from moorage.auth.errors import ConfigurationError
from moorage.auth.htpasswd import COSTS
from moorage.auth.passwords import LONGEST

__all__ = ["SHORTEST", "change_account", "check_password", "hash_password", "read_account"]

SHORTEST: Final = 8
"""Characters that a new password has at least (NIST SP 800-63B, 3.1.1.2)."""

_PRIVATE: Final = 0o600
_SAMPLES: Final = frozenset({"changeme", "change-me", "password", "passw0rd", "12345678", "123456789", "adminadmin"})


def check_password(password: str, *, user: str) -> None:
    """Returns if ``password`` may be a new one.

    Raises:
        ValueError: it may not; says why, without showing it.
    """
    size = len(password.encode("utf-8", "surrogatepass"))
    if len(password) < SHORTEST:
        raise ValueError(f"the password has {len(password)} characters; {SHORTEST} are the least")
    if size > LONGEST:
        raise ValueError(f"the password is {size} bytes long; {LONGEST} are the most that bcrypt looks at")
    if not password.isprintable():
        raise ValueError("the password holds a control character, which clients and terminals cannot send")
    if password.casefold() in _SAMPLES | {user.casefold(), user.casefold() * 2}:
        raise ValueError("the password is one that everybody tries first")


def hash_password(password: str) -> str:
    """The bcrypt hash of a password, as htpasswd files hold it; takes some 50 ms."""
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(COSTS.start)).decode()
    return f"$2y${hashed[4:]}"  # the same algorithm, under the name that Apache's tools know


def read_account(path: str, name: str) -> str | None:
    """What stands behind the colon of an account's line, right or wrong; None where there is no such line or file.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    try:
        found = _find(_lines(path), _start(name))
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from None
    return found[1] if found else None


def change_account(path: str, name: str, change: Callable[[str | None], str]) -> None:
    """Puts what ``change`` makes of an account in its place.

    Other lines are not judged, so that a file that servers refuse can be mended account by account.

    Args:
        change: is given what stands behind the colon, or None where there is no such line, and returns what is to
            stand there; whatever it raises leaves the file as it was.

    Raises:
        ConfigurationError: the file cannot be read or written.
    """
    real, start = os.path.realpath(path), _start(name)  # the file, not the link to it
    try:
        with _turn(os.path.dirname(real)):
            lines = _lines(real)
            found = _find(lines, start)
            place = found[0] if found else len(lines)
            lines[place : place + 1] = [start + change(found[1] if found else None).encode() + b"\n"]
            _replace(real, b"".join(lines))
    except OSError as exc:
        raise ConfigurationError(f"cannot write {path}: {exc.strerror}") from None


def _start(name: str) -> bytes:
    return name.encode() + b":"


def _find(lines: list[bytes], start: bytes) -> tuple[int, str] | None:
    for number, line in enumerate(lines):
        if line.startswith(start):
            return number, line[len(start) :].decode("ascii", "replace").strip()
    return None


def _lines(path: str) -> list[bytes]:
    """The lines of the file, each with its end; none where there is no file."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return []
    if content and not content.endswith(b"\n"):
        content += b"\n"
    return content.splitlines(keepends=True)


def _replace(path: str, content: bytes) -> None:
    folder = os.path.dirname(path)
    handle, aside = tempfile.mkstemp(prefix=".htpasswd-", dir=folder)
    try:
        with open(handle, "wb") as file:
            _take_over(path, handle)
            file.write(content)
            file.flush()
            os.fsync(handle)
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise
    _sync(folder)


def _take_over(path: str, handle: int) -> None:
    """Gives the new file the mode and the owner of the old one; without an old one it is ours alone."""
    try:
        old = os.stat(path)
    except FileNotFoundError:
        os.fchmod(handle, _PRIVATE)
        return
    os.fchmod(handle, stat.S_IMODE(old.st_mode))
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(handle, old.st_uid, old.st_gid)


@contextmanager
def _turn(folder: str) -> Iterator[None]:
    """Waits until nobody else writes here; the lock goes with its holder, and leaves no file behind."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
