"""``python -m tests.bench``: Moorage beside the other registries, on the same machine, in the same run, in turns.

Law: no figure stands alone. Every round runs a case against one registry after the other, so that what else the
machine does meets all of them; medians of the rounds are compared, and only the ratios are worth quoting.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench.cases import CASES, Case, Sample, measure
from tests.bench.images import MIB
from tests.bench.memory import burden
from tests.bench.peers import KINDS, Kind, Peer, available, running
from tests.bench.report import as_json, ratios, table
from tests.bench.stage import Stage


def main(arguments: Sequence[str]) -> int:
    """Runs what was asked for; 2 where wrk is missing."""
    options = _options(arguments)
    if shutil.which("wrk") is None:
        print("wrk is not installed (Debian: apt-get install wrk)", file=sys.stderr)
        return 2
    kinds = [kind for kind in available() if not options.peers or kind.name in options.peers]
    missing = [kind.name for kind in KINDS if kind not in available()]
    print(f"{', '.join(kind.name for kind in kinds)}; not installed: {', '.join(missing) or 'none'}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.root) as folder:
        results = _compare(kinds, _cases(options.only), Path(folder), rounds=options.rounds, seconds=options.seconds)
    print("\n" + ratios(results))
    if options.json:
        report = {"python": platform.python_version(), "machine": platform.machine(), "cases": as_json(results)}
        Path(options.json).write_text(json.dumps(report, indent=1))
    if options.memory:
        _memory(kinds, options.root)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Moorage beside other registries.")
    names = ",".join(case.name for case in CASES)
    parser.add_argument("--only", type=_names, default=[], help=f"cases, or how their names begin: {names}")
    parser.add_argument("--peers", type=_names, default=[], help=",".join(kind.name for kind in KINDS))
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case against each registry")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run")
    parser.add_argument("--quick", action="store_const", const=1.0, dest="seconds", help="runs of one second")
    parser.add_argument("--memory", action="store_true", help="also 50 uploads and downloads of 256 MiB at once")
    parser.add_argument("--root", help="folder for the registries' data (default: the system's for temporary files)")
    parser.add_argument("--json", help="file for every sample")
    return parser.parse_args(arguments)


def _names(value: str) -> list[str]:
    return value.split(",")


def _cases(only: list[str]) -> list[Case]:
    return [case for case in CASES if not only or any(case.name.startswith(name) for name in only)]


def _compare(
    kinds: list[Kind], cases: list[Case], folder: Path, *, rounds: int, seconds: float
) -> dict[str, dict[str, list[Sample]]]:
    stage = Stage.make()
    results: dict[str, dict[str, list[Sample]]] = {}
    with ExitStack() as stack:
        peers = [stack.enter_context(running(kind, folder)) for kind in kinds]
        for peer in peers:
            stage.fill(peer.address)
            stage.check(peer.address)
        for case in cases:
            results[case.name] = _rounds(case, peers, stage, rounds=rounds, seconds=seconds)
            print(table(case, results[case.name]), flush=True)
    return results


def _rounds(case: Case, peers: list[Peer], stage: Stage, *, rounds: int, seconds: float) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {peer.name: [] for peer in peers}
    for number in range(rounds):
        run = case.prepare(stage, seconds)
        # Each round begins with another registry, so that none always follows the same neighbour.
        turn = number % len(peers)
        for peer in peers[turn:] + peers[:turn]:
            samples[peer.name].append(measure(peer, run))
    return samples


def _memory(kinds: list[Kind], root: str | None) -> None:
    print("\n50 uploads, then 50 downloads of 256 MiB at once: MiB above idle of the process that grew most")
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=root) as folder, running(kind, Path(folder)) as peer:
            held = burden(peer, transfers=50, size=256 * MIB)
        grown = f"up +{held.uploading / MIB:4.0f}  down +{held.downloading / MIB:4.0f}"
        rates = f"{held.upload_rate / 1e6:6.0f} and {held.download_rate / 1e6:6.0f} MB/s"
        print(f"  {kind.name:16} idle {held.idle / MIB:4.0f}  {grown}  {rates}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
