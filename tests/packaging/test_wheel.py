"""The wheel is what people install: it holds every module, under one prefix, and works outside the checkout.

An editable install imports a subpackage that pyproject.toml does not list; the wheel lacks it. So these tests build
the wheel, install it into a clean environment and use it from an empty directory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("registry", "puller", "storage_backends", "auth")
IMPORT_EVERYTHING = """
import importlib, pathlib, sys
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    assert pathlib.Path(module.__file__).is_relative_to(sys.prefix), module.__file__
print(len(sys.argv) - 1)
"""
NEEDS_PYTEST = {"moorage.registry.pytest_plugin"}
USERS_TEST = """
import urllib.request
def test_mine(registry):
    digest = registry.add_image("app:v1", {"etc/motd": "hi"})
    with urllib.request.urlopen(f"{registry.url}/v2/app/manifests/v1") as answer:
        assert answer.headers["docker-content-digest"] == digest
"""
RUN_PYTEST = "import sys; sys.path.insert(0, sys.argv[1]); import pytest; sys.exit(pytest.main(sys.argv[2:]))"


def run(*command: str | Path, cwd: Path) -> str:
    """What the command prints; it runs without the checkout's environment and must succeed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST", "VIRTUAL_ENV"))}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sources() -> set[str]:
    """Every Python file of the packages, as a path below the checkout."""
    files = (path for package in PACKAGES for path in (CHECKOUT / package).rglob("*.py"))
    return {path.relative_to(CHECKOUT).as_posix() for path in files}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive, and that from a copy: no build directory of the checkout leaks in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE", *PACKAGES):
        path = CHECKOUT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    run(sys.executable, "-m", "build", "--outdir", out, source, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` directory of a clean environment that holds the wheel and nothing of the checkout."""
    place = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", place, cwd=place.parent)
    run(place / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=place.parent)
    return place / "bin"


def test_top_level_is_one_prefix(wheel: Path) -> None:
    """The wheel installs ``moorage`` and its metadata, never a bare ``registry`` or ``auth``."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {"moorage"} == {top for top in tops if not top.endswith(".dist-info")}
    assert len(tops) == 2


def test_every_source_file_is_in_the_wheel(wheel: Path) -> None:
    """No subpackage is forgotten in pyproject.toml."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"moorage/{path}" for path in sources()} - names == set()
    assert {f"moorage/{package}/py.typed" for package in PACKAGES} - names == set()


def test_every_module_imports_outside_the_checkout(environment: Path, tmp_path: Path) -> None:
    """What is installed is complete: every module loads, and from the environment."""
    modules = sorted(f"moorage.{p.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__") for p in sources())
    product = [module for module in modules if module not in NEEDS_PYTEST]
    printed = run(environment / "python", "-W", "error", "-c", IMPORT_EVERYTHING, *product, cwd=tmp_path)
    assert printed.strip() == str(len(modules) - len(NEEDS_PYTEST))


def test_the_program_answers(environment: Path, tmp_path: Path, wheel: Path) -> None:
    """``moorage --version`` names the version that the wheel carries."""
    assert wheel.name.split("-")[1] in run(environment / "moorage", "--version", cwd=tmp_path)


def test_users_get_the_registry_fixture(environment: Path, tmp_path: Path) -> None:
    """The wheel brings the pytest plugin: the fixture is there without a conftest. (Their pytest, beside the wheel.)"""
    tools = tmp_path / "tools"
    run(
        environment / "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--target",
        tools,
        "pytest",
        cwd=tmp_path,
    )
    (tmp_path / "test_mine.py").write_text(USERS_TEST)
    said = run(environment / "python", "-c", RUN_PYTEST, tools, "-W", "error", "-p", "no:cacheprovider", cwd=tmp_path)
    assert "1 passed" in said
