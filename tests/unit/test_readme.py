"""What the README says is true: its table of settings, and its examples in Python, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from moorage.registry.settings import Settings, load_settings
from moorage.registry.testing import LoopbackRegistry

README = Path(__file__).parents[2] / "README.md"
EXAMPLES: list[str] = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `(--[a-z-]+)` \| `(MOORAGE_[A-Z_]+)` \| (.+?) \|", re.MULTILINE)


def rows() -> dict[str, str]:
    """Environment variable → default, as the README has them."""
    return {variable: default.strip("`") for _, variable, default in _ROW.findall(README.read_text())}


def test_every_setting_is_in_the_table() -> None:
    """A setting that is added, renamed or removed shows here."""
    assert set(rows()) == {f"MOORAGE_{name.upper()}" for name in Settings.__struct_fields__} | {"MOORAGE_CONFIG"}


def test_every_default_is_true() -> None:
    """The defaults in the table, given as variables, change nothing."""
    given = {variable: default for variable, default in rows().items() if default != "none"}
    assert load_settings({}, given).settings == load_settings({}, {}).settings
    assert len(given) > len(rows()) / 2


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_run(registry: LoopbackRegistry, tmp_path: Path, number: int) -> None:
    """As programs of their own, or as a test where they are one; against a registry that has ``demo/files:v1``."""
    registry.add_image("demo/files:v1", {"etc/motd": "hello"}, config={"history": [{"created_by": "by hand"}]})
    example = EXAMPLES[number].replace("127.0.0.1:5000", registry.host)
    (tmp_path / "test_example.py").write_text(example)
    program = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "no:asyncio"] if "def test_" in example else []
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}  # ours, not a user's
    done = subprocess.run(
        [sys.executable, "-W", "error", *program, "test_example.py"],
        cwd=tmp_path,
        env={**environment, "MOORAGE_STORE": str(tmp_path / "default")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
