"""Moorage as people have it: the wheel of this checkout, in an environment of its own.

The environment of the checkout is an editable one with all development tools in it; a bare interpreter takes twice as
long to start there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["install"]

_CHECKOUT = Path(__file__).parents[3]
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "registry", "puller", "storage_backends", "auth")


def install(place: Path) -> None:
    """Brings the environment at ``place`` up to date, and its programs to the front of ``PATH``."""
    if not (place / "bin" / "python").exists():
        _run(sys.executable, "-m", "venv", place)
    pip: list[str | Path] = [place / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:  # a copy, because building leaves things behind
        for name in _SOURCES:
            source, copy = _CHECKOUT / name, Path(folder) / name
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy)
        _run(*pip, folder)
        _run(*pip, "--force-reinstall", "--no-deps", folder)  # the version is the same, the code may not be
    os.environ["PATH"] = f"{place / 'bin'}:{os.environ['PATH']}"


def _run(*command: str | Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run([*map(str, command)], env=environment, check=True)
