"""CI's rule against silent skips, shown on test files of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def outcome(source: str, place: Path, *options: str) -> str:
    """The closing line of a pytest run over ``source``."""
    (place / "test_it.py").write_text(f"import pytest\n{source}\n")
    (place / "pytest.ini").write_text("[pytest]\nmarkers = conformance\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest", *options]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=60)
    return done.stdout.splitlines()[-1]


SKIPPED = "def test_a():\n    pytest.skip('why')"
CASES = [
    pytest.param(SKIPPED, "1 failed", id="a test that skips itself"),
    pytest.param("@pytest.mark.skipif(True, reason='why')\ndef test_a(): ...", "1 error", id="a marked test"),
    pytest.param("pytest.skip('why', allow_module_level=True)", "1 error", id="a whole module"),
    pytest.param(f"@pytest.mark.conformance\n{SKIPPED}", "1 skipped", id="the official suite may"),
    pytest.param("def test_a(): ...", "1 passed", id="nothing is skipped"),
    pytest.param("@pytest.mark.xfail\ndef test_a(): assert 0", "1 xfailed", id="an expected failure is no skip"),
]


@pytest.mark.parametrize(("source", "closing"), CASES)
def test_ci_refuses_skips(source: str, closing: str, tmp_path: Path) -> None:
    """With --no-skips a skip is a failure, but for the conformance suite."""
    assert outcome(source, tmp_path, "--no-skips").startswith(closing)


def test_elsewhere_a_skip_is_a_skip(tmp_path: Path) -> None:
    """Without the option nothing changes."""
    assert outcome(SKIPPED, tmp_path).startswith("1 skipped")
