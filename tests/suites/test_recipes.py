"""The recipes for CI systems: well-formed, and their own steps do what they say, with a store that outlives a run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from moorage.registry.testing import LoopbackRegistry

RECIPES = Path(__file__).parents[2] / "deploy" / "ci"
_INSTALL = "pip install moorage"


def github_steps() -> list[str]:
    """The shell steps of the one job."""
    (job,) = load("github-actions.yml")["jobs"].values()
    return [step["run"] for step in job["steps"] if "run" in step]


def gitlab_steps() -> list[str]:
    """The same."""
    job = load("gitlab-ci.yml")["image"]
    return [*job["before_script"], *job["script"]]


def load(name: str) -> dict[str, Any]:
    """The parsed recipe."""
    document: dict[str, Any] = yaml.safe_load((RECIPES / name).read_text())
    return document


def run(steps: list[str], work: Path, environment: Mapping[str, str]) -> None:
    """As a CI system does: each in a shell that stops at the first failure, in the job's directory."""
    work.mkdir()
    for step in steps:
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step],
            cwd=work, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{step}: {done.stderr}"


@pytest.mark.parametrize("steps", [github_steps(), gitlab_steps()], ids=["github", "gitlab"])
def test_a_second_run_fetches_no_layer(registry: LoopbackRegistry, tmp_path: Path, steps: list[str]) -> None:
    """The first one fetches each once; the cached store is all that the second one needs."""
    assert steps[0] == _INSTALL
    registry.add_image("team/app:latest", {"etc/motd": "one"}, {"etc/issue": "two"})
    environment = {
        "IMAGE": f"{registry.host}/team/app:latest",
        "MOORAGE_STORE": str(tmp_path / "store"),
        "MOORAGE_REGISTRY": registry.host,
        "MOORAGE_USERNAME": "job",
        "MOORAGE_PASSWORD": "secret",
        "DOCKER_CONFIG": str(tmp_path / "docker"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    run(steps[1:], tmp_path / "first", environment)
    assert (tmp_path / "first" / "rootfs" / "etc" / "motd").read_text() == "one"
    assert layers_fetched(registry) == 2
    registry.forget_requests()
    run(steps[1:], tmp_path / "second", environment)
    assert (tmp_path / "second" / "rootfs" / "etc" / "issue").read_text() == "two"
    assert layers_fetched(registry) == 0


def layers_fetched(registry: LoopbackRegistry) -> int:
    """Different blobs that were asked for, but for the small configs that inspecting reads."""
    asked = {request.path for request in registry.requests if request.method == "GET" and "/blobs/" in request.path}
    return len(asked) - 1 if asked else 0


def test_what_is_cached_is_the_store() -> None:
    """The path that the cache keeps is the one that Moorage is told; and a login says for which registry it is."""
    github, gitlab = load("github-actions.yml"), load("gitlab-ci.yml")
    (cache,) = [step for step in github["jobs"]["image"]["steps"] if step.get("uses", "").startswith("actions/cache@")]
    for variables in (github["env"], gitlab["variables"]):
        assert {"MOORAGE_REGISTRY", "MOORAGE_USERNAME", "MOORAGE_PASSWORD"} < set(variables)
    assert github["env"]["MOORAGE_STORE"] == f"${{{{ github.workspace }}}}/{cache['with']['path']}"
    assert gitlab["variables"]["MOORAGE_STORE"] == f"$CI_PROJECT_DIR/{gitlab['image']['cache']['paths'][0].rstrip('/')}"
