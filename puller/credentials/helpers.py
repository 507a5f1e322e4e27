"""Credential helpers: programs named ``docker-credential-NAME`` that keep secrets for docker and its kin.

Law (rule N10): a name cannot hold a path, the program comes from an absolute folder of PATH, what it is told holds no
control character, what it answers is bounded in size and time, and none of it is ever shown.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import subprocess
import time
from contextlib import suppress
from typing import IO, Any

from moorage.puller.credentials.model import Credentials
from moorage.puller.errors import CredentialsUnusable

__all__ = ["ask_helper", "erase_from_helper", "store_in_helper"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # with a dot: docker's own under WSL is "desktop.exe"
_LIMIT = 64 * 1024
_TIMEOUT = 30.0
"""Seconds. Helpers ask clouds for tokens, and people for the passphrase of a key."""

_NOT_FOUND = b"credentials not found in native keychain"
_TOKEN_USER = "<token>"  # noqa: S105  # how helpers mark an identity token


def ask_helper(name: str, servers: tuple[str, ...]) -> Credentials | None:
    """What the helper keeps for the first of ``servers`` that it knows. Blocks.

    Raises:
        CredentialsUnusable: it is not installed, failed, or answered with something else.
    """
    for server in servers:
        status, output = _run(name, "get", _checked(server).encode())
        if status == 0:
            found = _read_answer(name, output)
            if found is not None:
                return found
        elif output.strip() != _NOT_FOUND:
            raise CredentialsUnusable(f"the credential helper {name!r} failed with status {status}")
    return None


def store_in_helper(name: str, server: str, credentials: Credentials) -> None:
    """Gives the helper credentials to keep. Blocks.

    Raises:
        CredentialsUnusable: it is not installed, or failed.
    """
    username = _TOKEN_USER if credentials.identity_token else credentials.username
    secret = credentials.identity_token or credentials.password
    document = {"ServerURL": _checked(server), "Username": username, "Secret": secret}
    _expect_success(name, "store", json.dumps(document).encode())


def erase_from_helper(name: str, server: str) -> None:
    """Lets the helper forget ``server``; that it knew nothing is no error. Blocks.

    Raises:
        CredentialsUnusable: it is not installed, or failed.
    """
    _expect_success(name, "erase", _checked(server).encode())


def _expect_success(name: str, verb: str, payload: bytes) -> None:
    status, output = _run(name, verb, payload)
    if status != 0 and output.strip() != _NOT_FOUND:
        raise CredentialsUnusable(f"the credential helper {name!r} could not {verb} (status {status})")


def _checked(server: str) -> str:
    if not server.isprintable():
        raise CredentialsUnusable(f"not a registry: {server!r}")
    return server


def _read_answer(name: str, output: bytes) -> Credentials | None:
    try:
        document: Any = json.loads(output)
        username, secret = document.get("Username", ""), document.get("Secret", "")
    except (ValueError, AttributeError, RecursionError):
        username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise CredentialsUnusable(f"the credential helper {name!r} answered with something else than credentials")
    if not secret:
        return None
    return Credentials(identity_token=secret) if username == _TOKEN_USER else Credentials(username, secret)


def _run(name: str, verb: str, payload: bytes) -> tuple[int, bytes]:
    """Exit status and standard output of one call."""
    process = subprocess.Popen(  # noqa: S603  # the name is checked, the path absolute, no shell
        [_find(name), verb], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None  # noqa: S101  # for the type checker: both are pipes
    assert process.stdout is not None  # noqa: S101
    deadline = time.monotonic() + _TIMEOUT
    try:
        with suppress(BrokenPipeError):  # it may answer without having listened
            process.stdin.write(payload)
            process.stdin.close()
        output = _read_until(process.stdout, deadline)
        return process.wait(max(0.0, deadline - time.monotonic())), output
    except (TimeoutError, subprocess.TimeoutExpired):
        raise CredentialsUnusable(f"the credential helper {name!r} took more than {_TIMEOUT:.0f} s") from None
    except _TooMuch:
        raise CredentialsUnusable(f"the credential helper {name!r} answered more than {_LIMIT} bytes") from None
    finally:
        process.kill()
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        process.wait()


def _find(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise CredentialsUnusable(f"not the name of a credential helper: {name!r}")
    program = f"docker-credential-{name}"
    path = shutil.which(program)
    if path is None or not os.path.isabs(path):
        raise CredentialsUnusable(f"the credential helper {program} is configured, but it is not installed (on PATH)")
    return path


def _read_until(pipe: IO[bytes], deadline: float) -> bytes:
    output = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            chunk = os.read(pipe.fileno(), _LIMIT)
            if not chunk:
                return bytes(output)
            output += chunk
            if len(output) > _LIMIT:
                raise _TooMuch
    raise TimeoutError


class _TooMuch(Exception):
    """The helper does not stop."""
