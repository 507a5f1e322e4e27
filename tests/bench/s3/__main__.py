"""``python -m tests.bench.s3``: Moorage beside distribution over buckets of the same MinIO, in turns; then the requests
that each sends to S3 for an operation.

Law: as in ``tests.bench``: no figure stands alone, medians of the turns are compared, only ratios are worth quoting.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench.peers import Peer
from tests.bench.s3.cases import CASES, Case, Sample, measure
from tests.bench.s3.counts import count
from tests.bench.s3.peers import KINDS, running
from tests.bench.s3.report import as_json, counts_table, times_table
from tests.bench.s3.stage import Stage
from tests.s3.servers import S3Server
from tests.s3.servers import running as s3_running


def main(arguments: Sequence[str]) -> int:
    """Runs what was asked for."""
    options = _options(arguments)
    cases = [case for case in CASES if not options.only or options.only in case.name]
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=options.root) as folder,
        s3_running("minio", Path(folder)) as server,
    ):
        for bucket in sorted({kind.bucket for kind in KINDS}):
            server.client().create_bucket(Bucket=bucket)
        stage = Stage.make()
        samples = _compare(cases, stage, server, Path(folder), rounds=options.rounds)
        print(times_table(samples), flush=True)
        counts = count(server, Path(folder), stage)
        print("\n" + counts_table(counts))
    if options.json:
        Path(options.json).write_text(json.dumps(as_json(samples, counts), indent=1))
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.s3", description="Registries over S3, side by side.")
    parser.add_argument("--only", help=f"a word in the case's name: {'; '.join(case.name for case in CASES)}")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each case for each registry")
    parser.add_argument("--root", help="folder for MinIO's data (default: the system's for temporary files)")
    parser.add_argument("--json", help="file for every sample")
    options = parser.parse_args(arguments)
    if options.only and not any(options.only in case.name for case in CASES):
        parser.error(f"no case has {options.only!r} in its name")
    return options


def _compare(
    cases: list[Case], stage: Stage, server: S3Server, folder: Path, *, rounds: int
) -> dict[str, dict[str, list[Sample]]]:
    results: dict[str, dict[str, list[Sample]]] = {}
    with ExitStack() as stack:
        peers = {kind.name: stack.enter_context(running(kind, server, folder)) for kind in KINDS}
        for kind in KINDS:
            if not kind.redirects:
                stage.fill(peers[kind.name].address, server, kind.bucket)
        for case in cases:
            chosen = [peers[kind.name] for kind in KINDS if case.redirected or not kind.redirects]
            results[case.name] = _turns(case, chosen, stage, rounds=rounds)
            print(f"{case.name}: done", file=sys.stderr, flush=True)
    return results


def _turns(case: Case, peers: list[Peer], stage: Stage, *, rounds: int) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {peer.name: [] for peer in peers}
    for number in range(rounds):
        # Each round begins with another registry, so that none always follows the same neighbour.
        turn = number % len(peers)
        for peer in peers[turn:] + peers[:turn]:
            samples[peer.name].append(measure(peer, case, stage))
    return samples


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
