"""Figures: what is counted, that rows add up, and that Prometheus can read them."""

from __future__ import annotations

import os
from typing import Any

import pytest
from moorage.registry.oci.routes import Endpoint
from moorage.registry.store.measured import OPERATIONS
from moorage.registry.web.metrics import CUT, ENDPOINTS, Meter, Table
from prometheus_client.parser import text_string_to_metric_families


def _samples(table: Table) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(table.render("1.2.3").decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def _value(table: Table, name: str, **labels: str) -> float:
    return _samples(table)[name, tuple(sorted(labels.items()))]


def _end(meter: Meter, endpoint: str = "GetBlob", method: str = "GET", status: int = 200, **figures: int) -> None:
    meter.request(endpoint, method, status, **({"nanoseconds": 3_000_000, "received": 0, "sent": 0} | figures))


def test_requests_of_all_workers_add_up() -> None:
    """Each worker writes its row, the text has the sum."""
    table = Table(workers=3)
    for worker in range(3):
        for _ in range(worker + 1):
            _end(table.meter(worker), sent=10)
    assert _value(table, "moorage_requests_total", endpoint="GetBlob", method="GET", status="2xx") == 6
    assert _value(table, "moorage_sent_bytes_total", endpoint="GetBlob") == 60


def test_another_process_counts_into_the_same_table() -> None:
    """What a forked worker counts, the parent and its siblings can tell."""
    table = Table(workers=2)
    pid = os.fork()
    if pid == 0:
        _end(table.meter(1))
        os._exit(0)
    os.waitpid(pid, 0)
    _end(table.meter(0))
    assert _value(table, "moorage_requests_total", endpoint="GetBlob", method="GET", status="2xx") == 2


def test_latencies_are_cumulative_buckets() -> None:
    """A request counts in every bucket from its own upwards; a bucket's bound belongs to it."""
    table = Table(workers=1)
    for nanoseconds in (1_000_000, 1_000_001, 7_000_000_000, 10**12):
        _end(table.meter(0), nanoseconds=nanoseconds)
    buckets = {le: _value(table, "moorage_request_seconds_bucket", endpoint="GetBlob", le=le) for le in _bounds(table)}
    assert (buckets["0.001"], buckets["0.0025"], buckets["5.0"], buckets["10.0"], buckets["+Inf"]) == (1, 2, 2, 3, 4)
    assert _value(table, "moorage_request_seconds_count", endpoint="GetBlob") == 4
    assert _value(table, "moorage_request_seconds_sum", endpoint="GetBlob") == pytest.approx(1007.002, abs=0.001)


def _bounds(table: Table) -> list[str]:
    return [dict(labels)["le"] for name, labels in _samples(table) if name == "moorage_request_seconds_bucket"]


@pytest.mark.parametrize(
    ("endpoint", "status", "event"),
    [
        pytest.param("StartUpload", 202, "started", id="a session"),
        pytest.param("StartUpload", 201, "mounted", id="a mount"),
        pytest.param("FinishUpload", 201, "finished", id="a blob"),
        pytest.param("CancelUpload", 204, "cancelled", id="a cancellation"),
    ],
)
def test_uploads_by_what_became_of_them(endpoint: str, status: int, event: str) -> None:
    """An upload's life is read off the answers; a failed one counts as nothing."""
    table = Table(workers=1)
    _end(table.meter(0), endpoint, "POST", status)
    _end(table.meter(0), endpoint, "POST", 400)
    _end(table.meter(0), endpoint, "POST", CUT)
    assert _value(table, "moorage_uploads_total", event=event) == 1


def test_no_client_makes_a_label() -> None:
    """A method out of the blue is counted as such, and every endpoint has its place beforehand."""
    table = Table(workers=1)
    for method in ("BREW", "GET\n", 'x"}'):
        _end(table.meter(0), "Invalid", method, 405)
    assert _value(table, "moorage_requests_total", endpoint="Invalid", method="other", status="4xx") == 3
    for kind in Endpoint.__args__:
        assert kind.__name__ in ENDPOINTS
        _end(table.meter(0), kind.__name__)


def test_storage_operations() -> None:
    """Count, failures and seconds of each."""
    table = Table(workers=1)
    table.meter(0).storage(OPERATIONS.index("put"), 2_000_000_000, failed=False)
    table.meter(0).storage(OPERATIONS.index("put"), 1_000_000_000, failed=True)
    assert _value(table, "moorage_storage_operations_total", operation="put") == 2
    assert _value(table, "moorage_storage_failures_total", operation="put") == 1
    assert _value(table, "moorage_storage_seconds_total", operation="put") == 3


def test_a_worker_goes_on_with_its_predecessors_row() -> None:
    """Counters never go back when a worker is started again; what the dead one had open is closed."""
    table = Table(workers=1)
    first = table.meter(0)
    first.process_started()
    first.connection_opened()
    first.running(3)
    assert _value(table, "moorage_running_requests") == 3
    _end(first)
    table.meter(0).process_started()
    assert _value(table, "moorage_requests_total", endpoint="GetBlob", method="GET", status="2xx") == 1
    assert _value(table, "moorage_connections_total") == 1
    assert _value(table, "moorage_open_connections") == 0
    assert _value(table, "moorage_running_requests") == 0
    assert _value(table, "moorage_worker_starts_total", worker="0") == 2


def test_processes_tell_of_themselves() -> None:
    """Memory, time and the version."""
    table = Table(workers=1)
    table.meter(0).process_started()
    assert _value(table, "moorage_info", version="1.2.3") == 1
    assert _value(table, "moorage_worker_resident_bytes", worker="0") > 1e6
    assert _value(table, "moorage_worker_cpu_seconds_total", worker="0") > 0


def test_every_family_has_help() -> None:
    """A figure without a word of help is of no use."""
    families: list[Any] = list(text_string_to_metric_families(Table(workers=1).render("1").decode()))
    assert len(families) > 15
    assert [family.name for family in families if not family.documentation] == []


@pytest.mark.parametrize(
    ("open_connections", "more", "gives_way"),
    [
        pytest.param((0, 0), 0, False, id="both empty"),
        pytest.param((1, 0), 0, False, id="one more is even enough"),
        pytest.param((2, 0), 0, True, id="two more are too many"),
        pytest.param((0, 0), 2, True, id="those being greeted count"),
        pytest.param((105, 100), 0, False, id="of many, an eighth more is even enough"),
        pytest.param((114, 100), 0, True, id="beyond an eighth it is not"),
        pytest.param((0, 5), 0, False, id="fewer"),
    ],
)
def test_who_takes_the_next_connection(open_connections: tuple[int, int], more: int, gives_way: bool) -> None:
    """A worker gives way when it has clearly more connections than another one that accepts."""
    table = Table(workers=3)
    for worker, count in enumerate(open_connections):
        meter = table.meter(worker)
        meter.accepts(connections=True)
        for _ in range(count):
            meter.connection_opened()
    assert table.has_more(0, more) is gives_way


def test_a_worker_alone_gives_way_to_nobody() -> None:
    """Workers that do not accept, being dead or draining, are not waited for."""
    table = Table(workers=2)
    table.meter(0).accepts(connections=True)
    for _ in range(50):
        table.meter(0).connection_opened()
    assert not table.has_more(0, 1)
