"""MinIO as a real cluster: four nodes, erasure coded. The registry's work goes on while a node is away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.s3.cluster import Cluster, cluster

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces, which needs root"),
]


def test_a_node_is_away(tmp_path: Path) -> None:
    """With a node down all the time tags stay registers and everything is answered; and so while one node after
    another is stopped or killed, and started again."""
    with cluster(tmp_path) as nodes:
        _work(nodes, 60, lambda stop: None)
        nodes.stop(4, signal.SIGKILL)
        report = _work(nodes, 300, lambda stop: None)
        assert report["outcomes"]["put: done"] > 0, report
        nodes.start(4)
        turns: list[int] = []

        def harass(stop: threading.Event) -> None:
            while not (stop.is_set() and turns):
                number, kind = (3, signal.SIGTERM) if len(turns) % 2 else (4, signal.SIGKILL)
                nodes.stop(number, kind)
                stop.wait(4)
                nodes.start(number)
                turns.append(number)
                stop.wait(4)  # it heals

        _work(nodes, 400, harass)
        assert turns
        print(f"nodes stopped and started: {turns}")


def _work(nodes: Cluster, operations: int, meanwhile: Callable[[threading.Event], None]) -> dict[str, Any]:
    """A trial by two replicas that know a node each; returns the report, which has no complaint."""
    command = [
        *("ip", "netns", "exec", nodes.hub, sys.executable, "-m", "tests.s3.inside"),
        *("registry", str(operations), "1", nodes.endpoint(1), nodes.endpoint(2)),
    ]
    environment = {**os.environ, **nodes.environment}
    stop = threading.Event()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        thread = threading.Thread(target=meanwhile, args=(stop,))
        thread.start()
        try:
            answer, errors = process.communicate(timeout=600)
        finally:
            stop.set()
            thread.join()
            process.kill()
    assert said == "ready\n", f"{errors}\n{nodes.logs()}"
    assert process.returncode == 0, f"{errors}\n{nodes.logs()}"
    report: dict[str, Any] = json.loads(answer)
    print({**report, "complaints": report["complaints"][:3]})
    assert not report["complaints"], "\n".join(report["complaints"][:5])
    return report
