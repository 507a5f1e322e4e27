"""Several processes pull, push, tag, remove and prune in one store at once: none makes another fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from moorage.registry.testing import LoopbackRegistry

from tests.crash.client_life import judge
from tests.crash.scene import IMAGES, layer_files


@pytest.mark.timeout(1800)
def test_a_crowd_in_one_store(tmp_path: Path) -> None:
    """MOORAGE_CROWD=8:600 lets eight processes work for ten minutes; here it is three, for moments."""
    crowd, _, seconds = os.environ.get("MOORAGE_CROWD", "3:2").partition(":")
    with LoopbackRegistry() as registry:
        for name, layers in IMAGES.items():
            registry.add_image(name, *map(layer_files, layers))
        told = [str(part) for part in (registry.host, tmp_path / "store", tmp_path)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.crash.client_life", *told, f"crowd{number}", seconds],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for number in range(int(crowd))
        ]  # fmt: skip
        said = "".join(process.communicate()[0] for process in processes)
        assert said == ""
        assert judge(registry.host, tmp_path / "store", "crowd") == []
