"""A user without rights, for tests that root runs: real ids, lent ids for namespaces, and our code run as that user.

Rule: the interpreter may be where that user cannot read, so everything is imported before the rights go.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import textwrap
from pathlib import Path

__all__ = ["NAME", "become", "make_somebody", "run_as_somebody"]

NAME = "moorage-tests"
_ROOT = Path(__file__).parent.parent
_PRELUDE = f"""
import importlib, pkgutil, sys
import moorage.puller.unpack, zstandard, tests.layers, tests.somebody, encodings.ascii, encodings.idna
for module in pkgutil.walk_packages(moorage.puller.unpack.__path__, "moorage.puller.unpack."):
    importlib.import_module(module.name)
tests.somebody.become({NAME!r})
"""


def make_somebody() -> pwd.struct_passwd:
    """The user, made if need be, with 65536 lent ids. Needs root."""
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", NAME], check=True, capture_output=True)
        found = pwd.getpwnam(NAME)
    if f"{NAME}:" not in Path("/etc/subuid").read_text():
        lend = ["usermod", "--add-subuids", "5000000-5065535", "--add-subgids", "5000000-5065535", NAME]
        subprocess.run(lend, check=True, capture_output=True)
    return found


def become(name: str) -> None:
    """Makes this process one of that user, as if the user had started it."""
    import ctypes  # noqa: PLC0415  # only in the child

    user = pwd.getpwnam(name)
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: else /proc/<pid> stays root's, and newuidmap refuses
    os.environ.update(HOME=user.pw_dir, USER=name, LOGNAME=name, XDG_RUNTIME_DIR=f"{user.pw_dir}/run")
    os.chdir(user.pw_dir)


def run_as_somebody(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code as that user; ``arguments`` are its ``sys.argv[1:]``."""
    code = _PRELUDE + textwrap.dedent(program)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, check=False, timeout=100, cwd=_ROOT,
    )  # fmt: skip
