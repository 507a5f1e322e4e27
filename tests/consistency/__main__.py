"""The long trial, by hand: ``python -m tests.consistency minio --replicas 3 --operations 50000``.

Prints what was done and how it ended; the exit status is 1 if anything was not as a register answers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from tests.consistency.trial import trial
from tests.faultproxy import Fault, FaultProxy, sometimes
from tests.s3.servers import SERVERS, running


def main() -> int:
    """Runs one trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", choices=[*SERVERS, "versitygw with sidecar"])
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--operations", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lost-answers", type=float, default=0.0, help="share of the store's answers that get lost")
    given = parser.parse_args()
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(running(given.server, folder))
        root = server.url(server.bucket(), "registry")
        if given.lost_answers:
            place = urlsplit(server.endpoint)
            proxy = stack.enter_context(FaultProxy(str(place.hostname), place.port or 80))
            proxy.fault = Fault(when=sometimes(given.lost_answers, seed=given.seed), reset=0)
            root = root.replace(server.endpoint, proxy.endpoint)
        roots = [root] * given.replicas
        report = trial(roots, environment=server.environment, operations=given.operations, seed=given.seed)
    print(f"{given.server}, {given.replicas} replicas, {time.monotonic() - began:.0f} s: {report}")
    print("\n".join(report.complaints[:5]))
    return 1 if report.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
