"""``python -m tests.bench.client``: pull, download and push by Moorage and by the clients people use, in turns.

Law: no figure stands alone. In every round each client runs once, each time with an empty store (a push: with an empty
registry), and each round begins with another one; medians of the rounds are compared. Needs root to mount volumes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from tests.bench.client.clients import Client, available
from tests.bench.client.images import RECIPES, prepare
from tests.bench.client.installed import install
from tests.bench.client.measure import Run, run
from tests.bench.client.volumes import VOLUMES, Volume, mounted
from tests.bench.peers import KINDS, running

_USES = ("unpack", "download", "push")
_MB = 1e6

Results = dict[str, list[Run]]


def main(arguments: Sequence[str]) -> int:
    """Runs what was asked for."""
    options = _options(arguments)
    report: dict[str, dict[str, list[dict[str, float]]]] = {}
    install(Path(options.cache, "environment").absolute())
    recipes = [recipe for recipe in RECIPES if recipe.name in options.images]
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.root) as folder:
        for recipe in recipes:
            layout = prepare(recipe, Path(options.cache))
            for name in options.volumes:
                with mounted(name, Path(folder)) as volume:
                    stage = _Stage(recipe.name, layout, volume, Path(folder), options.registry)
                    for use in options.uses:
                        results = stage.compare(_chosen(use, options.clients), options.rounds)
                        print(_table(f"{use} {recipe.name} {name}", results), flush=True)
                        report[f"{use} {recipe.name} {name}"] = _as_json(results)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1))
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.client", description="Moorage beside other clients.")
    parser.add_argument("--images", type=_names, default=["1g-4layers", "100m-12layers", "2g-1layer"])
    parser.add_argument("--uses", type=_names, default=list(_USES), help=",".join(_USES))
    parser.add_argument("--volumes", type=_names, default=list(VOLUMES), help=",".join(VOLUMES))
    parser.add_argument("--clients", type=_names, default=[], help="only these, for example moorage,podman")
    parser.add_argument("--registry", default="distribution", help="who serves: " + ", ".join(k.name for k in KINDS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", default="results/bench-images", help="folder where the images are kept")
    parser.add_argument("--root", help="folder for registry and volumes (default: the system's for temporary files)")
    parser.add_argument("--json", help="file for every sample")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    return text.split(",")


def _chosen(use: str, names: Sequence[str]) -> list[Client]:
    return [client for client in available(use) if not names or client.name in names]


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where one image meets the clients. ``image``: its name, and its repository's."""

    image: str
    layout: Path
    volume: Volume
    folder: Path
    registry: str

    def compare(self, clients: Sequence[Client], rounds: int) -> Results:
        """Every client, ``rounds`` times in turn."""
        results: Results = {client.name: [] for client in clients}
        if clients[0].use == "push":
            for client in _turns(clients, rounds):
                with self._serving() as host:
                    results[client.name].append(self._run(client, host))
            return results
        with self._serving() as host:
            self._run(next(client for client in available("push") if client.name == "moorage"), host)
            for client in _turns(clients, rounds):
                results[client.name].append(self._run(client, host))
        return results

    @contextmanager
    def _serving(self) -> Iterator[str]:
        """An empty registry."""
        kind = next(kind for kind in KINDS if kind.name == self.registry)
        place = self.folder / "registry"
        place.mkdir()
        try:
            with running(kind, place) as peer:
                yield f"{peer.address[0]}:{peer.address[1]}"
        finally:
            shutil.rmtree(place)

    def _run(self, client: Client, host: str) -> Run:
        with client.session(self.volume.path / "run", host) as session:
            command = client.command(session, f"{host}/bench/{self.image}:latest", self.layout.absolute())
            log = self.folder / "log"
            return run(command, session.environment, daemon=session.daemon, written=self.volume.written, log=log)


def _turns(clients: Sequence[Client], rounds: int) -> Iterator[Client]:
    for number in range(rounds):
        first = number % len(clients)
        yield from clients[first:]
        yield from clients[:first]


def _table(title: str, results: Mapping[str, Sequence[Run]]) -> str:
    base = statistics.median(one.wall for one in results["moorage"]) if "moorage" in results else 0.0
    lines = [title, f"  {'':18}{'wall s':>8}{'±%':>4}{'CPU s':>8}{'MB mem':>8}{'MB disk':>9}{'x ours':>8}"]
    for name, rounds in results.items():
        wall, cpu, memory, written = (statistics.median(column) for column in zip(*map(astuple, rounds), strict=True))
        walls = [one.wall for one in rounds]
        spread = 50 * (max(walls) - min(walls)) / wall
        ratio = f"{wall / base:8.2f}" if base else ""
        lines.append(f"  {name:18}{wall:8.2f}{spread:4.0f}{cpu:8.2f}{memory / _MB:8.0f}{written / _MB:9.0f}{ratio}")
    return "\n".join(lines)


def _as_json(results: Mapping[str, Sequence[Run]]) -> dict[str, list[dict[str, float]]]:
    return {name: [asdict(one) for one in rounds] for name, rounds in results.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
