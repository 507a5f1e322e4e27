"""Tags are registers whatever happens (promise M4): clients at several replicas, replicas killed, answers lost.

The long trial of the same kind is run by hand: ``python -m tests.consistency minio --replicas 3 --operations 50000``.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from tests.consistency.trial import trial
from tests.faultproxy import Fault, FaultProxy, sometimes
from tests.s3.servers import S3Server

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("replicas", [2, 3])
def test_replicas_killed_under_load(server: S3Server, replicas: int) -> None:
    """Eight clients read, put, create, swap and delete; one uploads; the replicas die and come back throughout."""
    root = server.url(server.bucket(), "registry")
    report = trial([root] * replicas, environment=server.environment, operations=600, seed=replicas)
    print(report)
    assert not report.complaints, "\n".join(report.complaints)
    assert report.events > 300
    assert report.kills > 0
    assert report.moves > 0


def test_lost_answers_under_load(server: S3Server) -> None:
    """The store does what it was asked and its answer is lost, again and again: nothing takes effect twice."""
    place = urlsplit(server.endpoint)
    with FaultProxy(str(place.hostname), place.port or 80) as line:
        line.fault = Fault(when=sometimes(0.03, seed=2), reset=0)
        root = server.url(server.bucket(), "registry").replace(server.endpoint, line.endpoint)
        report = trial([root, root], environment=server.environment, operations=600, seed=2, kills=False)
    print(report)
    assert not report.complaints, "\n".join(report.complaints)
    assert report.events > 300
    assert line.met > 0
