"""What an import costs: the vocabulary never loads the server's or the client's libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"starlette", "uvicorn", "httpx", "boto3", "botocore", "jwt", "rich", "click", "msgspec"}


def loaded_by(statement: str) -> set[str]:
    """The top-level names in ``sys.modules`` of a fresh interpreter that ran ``statement``."""
    program = f"{statement}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize("leaf", ["moorage.registry.oci", "moorage.storage_backends", "moorage.auth"])
def test_a_leaf_loads_no_library_of_the_others(leaf: str) -> None:
    """Importing a leaf loads the standard library and itself."""
    assert loaded_by(f"import {leaf}") & HEAVY == set()


def test_the_check_sees_what_is_loaded() -> None:
    """The measure itself: an import of a heavy library shows."""
    assert "starlette" in loaded_by("import starlette")
