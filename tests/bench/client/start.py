"""``python -m tests.bench.client.start``: what it costs to start, beside a bare interpreter and one HEAD by httpx.

Law: all commands run once in every round, each a process of its own; medians are compared, and only ratios are quoted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.client.images import RECIPES, prepare
from tests.bench.client.installed import install
from tests.bench.peers import KINDS, running

_HEAD = "import httpx; httpx.head({url!r}).raise_for_status()"


def main(arguments: Sequence[str]) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.client.start")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cache", default="results/bench-images", help="folder where the environment is kept")
    options = parser.parse_args(arguments)
    install(Path(options.cache, "environment").absolute())
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Path(folder)
        layout = prepare(next(recipe for recipe in RECIPES if recipe.name == "tiny"), place)
        with running(next(kind for kind in KINDS if kind.name == "moorage"), place) as peer:
            reference = f"{peer.address[0]}:{peer.address[1]}/bench/tiny:latest"
            environment = {**os.environ, "MOORAGE_STORE": str(place / "store"), "HOME": folder}
            _run(["moorage", "push", f"oci:{layout}:latest", reference], environment)
            _run(["moorage", "pull", reference], environment)
            print(_table(_measure(_commands(reference), environment, options.rounds)))
    return 0


def _commands(reference: str) -> dict[str, list[str]]:
    host, _, rest = reference.partition("/")
    url = f"http://{host}/v2/{rest.removesuffix(':latest')}/manifests/latest"
    return {
        "python": ["python", "-c", "pass"],
        "moorage pull --help": ["moorage", "pull", "--help"],
        "httpx HEAD": ["python", "-c", _HEAD.format(url=url)],
        "moorage pull, all there": ["moorage", "pull", reference],
    }


def _measure(commands: dict[str, list[str]], environment: dict[str, str], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            seconds[name].append(_run(command, environment))
    return seconds


def _run(command: list[str], environment: dict[str, str]) -> float:
    began = time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.monotonic() - began


def _table(seconds: dict[str, list[float]]) -> str:
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    lines = [f"{'':26}{'ms':>6}{'x python':>10}{'x httpx':>9}"]
    for name, value in middle.items():
        lines.append(f"{name:26}{value * 1e3:6.0f}{value / middle['python']:10.1f}{value / middle['httpx HEAD']:9.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
