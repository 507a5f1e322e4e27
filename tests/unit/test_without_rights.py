"""The rules of unpacking hold for users as they do for root: their tests, run once more by a user without rights.

CI is root, and so is everything that ``make test`` starts there; that the rest held for nobody else was seen late.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.somebody import make_somebody

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

_RULES = ("test_layer_rules.py", "test_puller_unpack.py", "test_puller_hostile_layers.py")
_PROGRAM = """
import encodings.ascii, encodings.idna, importlib, os, pkgutil, pwd, sys
import pytest, zstandard
import moorage.puller.unpack
from tests.somebody import NAME, become

user = pwd.getpwnam(NAME)
os.geteuid, os.getegid = (lambda: user.pw_uid), (lambda: user.pw_gid)  # what is collected says whose files it makes

class Becoming:
    def pytest_collection_finish(self):
        for module in pkgutil.walk_packages(moorage.puller.unpack.__path__, "moorage.puller.unpack."):
            importlib.import_module(module.name)
        become(NAME)  # from here on nothing of ours can be read

sys.exit(pytest.main(["-q", "-m", "not root", "-n0", "-p", "no:cacheprovider", *sys.argv[1:]], plugins=[Becoming()]))
"""


def test_the_rules_hold_for_users(pytestconfig: pytest.Config) -> None:
    """Every test of them that does not say that it needs root."""
    user, strict = make_somebody(), ["--no-skips"] if pytestconfig.getoption("--no-skips") else []
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}  # a report is ours
    root, files = Path(__file__).parents[2], [Path(__file__).with_name(name) for name in _RULES]
    with tempfile.TemporaryDirectory(prefix="moorage-") as place:
        os.chown(place, user.pw_uid, user.pw_gid)
        words = [*strict, "-c", str(root / "pyproject.toml"), f"--basetemp={place}/tests", *map(str, files)]
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *words],
            env=environment | {"PYTHONPATH": str(root)}, cwd=place, capture_output=True, text=True, timeout=850,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
