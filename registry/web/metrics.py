"""Figures of all workers, told by whichever worker is asked.

Law: every figure is a 64-bit slot in memory that the workers share, a row per worker; only its worker writes a row, so
an increment needs no lock (0.1 us), and a reader sums the rows. The labels are fixed before the first request: nothing
that a client sends becomes a label. A worker that is started again goes on with its predecessor's row.
"""

from __future__ import annotations

import mmap
import os
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, get_args

from moorage.registry.oci.routes import Endpoint
from moorage.registry.store.measured import OPERATIONS
from moorage.registry.web.head import REASONS
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["CUT", "Meter", "Table"]

ENDPOINTS: Final = (*(kind.__name__ for kind in get_args(Endpoint)), "Invalid", "Token", "Other")
"""Kinds of requests: the API's endpoints; what is none of them; the token server; and health checks and the like."""

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "other")
OUTCOMES: Final = ("cut", "1xx", "2xx", "3xx", "4xx", "5xx")
CUT: Final = 0
"""The status of an answer that did not reach its end."""

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds, seconds."""

_LIMITS = tuple(int(bound * 1e9) for bound in BUCKETS)
_UPLOAD_EVENTS = ("started", "finished", "mounted", "cancelled", "expired")
_UPLOADS = {
    ("StartUpload", 202): "started",
    ("StartUpload", 201): "mounted",
    ("FinishUpload", 201): "finished",
    ("CancelUpload", 204): "cancelled",
}
_PROCESS = ("pid", "started", "starts", "ready")  # of the worker: its id, Unix time, how often, accepting or not


class _Plan:
    """Where each figure stands in a row."""

    def __init__(self) -> None:
        self.size = 0
        self.requests = {(e, m): self._take(len(OUTCOMES)) for e in ENDPOINTS for m in METHODS}
        self.seconds = {e: self._take(len(BUCKETS) + 2) for e in ENDPOINTS}  # buckets, beyond them, sum
        self.traffic = {e: self._take(2) for e in ENDPOINTS}  # received, sent
        self.uploads = {event: self._take(1) for event in _UPLOAD_EVENTS}
        self.refused = {reason: self._take(1) for reason in REASONS}
        self.storage = self._take(3 * len(OPERATIONS))  # count, failures, nanoseconds
        self.opened, self.closed, self.running = (self._take(1) for _ in range(3))
        self.process = {name: self._take(1) for name in _PROCESS}

    def _take(self, slots: int) -> int:
        self.size += slots
        return self.size - slots


_PLAN: Final = _Plan()


class Meter:
    """One worker's row: what the parts of the server report to."""

    def __init__(self, row: memoryview) -> None:
        self._row = row

    def request(self, endpoint: str, method: str, status: int, nanoseconds: int, received: int, sent: int) -> None:
        """A request is over; positional, because it is called for each one.

        Args:
            status: ``CUT`` if its answer did not reach its end.
            received, sent: bytes of the bodies.
        """
        row, plan = self._row, _PLAN
        base = plan.requests.get((endpoint, method))
        if base is None:
            base = plan.requests[endpoint, "other"]
        row[base + status // 100] += 1
        base = plan.seconds[endpoint]
        row[base + bisect_left(_LIMITS, nanoseconds)] += 1
        row[base + len(BUCKETS) + 1] += nanoseconds
        if received or sent:
            base = plan.traffic[endpoint]
            row[base] += received
            row[base + 1] += sent
        if (event := _UPLOADS.get((endpoint, status))) is not None:
            row[plan.uploads[event]] += 1

    def uploads_expired(self, count: int) -> None:
        """Abandoned uploads were dropped."""
        self._row[_PLAN.uploads["expired"]] += count

    def running(self, count: int) -> None:
        """So many requests are being answered now."""
        self._row[_PLAN.running] = count

    def connection_opened(self) -> None:
        """A connection was accepted."""
        self._row[_PLAN.opened] += 1

    def connection_closed(self) -> None:
        """A connection is gone."""
        self._row[_PLAN.closed] += 1

    def refused(self, reason: str) -> None:
        """A request or a connection was refused below the app. ``reason``: one of ``head.REASONS``."""
        self._row[_PLAN.refused[reason]] += 1

    def storage(self, operation: int, nanoseconds: int, *, failed: bool) -> None:
        """A storage operation ended; see ``StorageMeter``."""
        row, base = self._row, _PLAN.storage + 3 * operation
        row[base] += 1
        row[base + 2] += nanoseconds
        if failed:
            row[base + 1] += 1

    def process_started(self) -> None:
        """This process has taken the row over. What its predecessor had open is closed, since it is dead."""
        row, process = self._row, _PLAN.process
        row[process["pid"]], row[process["started"]] = os.getpid(), int(time.time())
        row[process["starts"]] += 1
        row[_PLAN.closed], row[_PLAN.running] = row[_PLAN.opened], 0

    @property
    def ready(self) -> bool:
        """Whether the worker has said that it accepts connections."""
        return bool(self._row[_PLAN.process["ready"]])

    def accepts(self, *, connections: bool) -> None:
        """The worker says whether it accepts connections."""
        self._row[_PLAN.process["ready"]] = connections


class Table:
    """The rows of all workers. Make it before the workers are forked."""

    def __init__(self, workers: int) -> None:
        self._memory = memoryview(mmap.mmap(-1, workers * _PLAN.size * 8)).cast("Q")
        self._rows = [self._memory[i * _PLAN.size : (i + 1) * _PLAN.size] for i in range(workers)]

    def meter(self, worker: int) -> Meter:
        """The row of a worker, counted from 0."""
        return Meter(self._rows[worker])

    def has_more(self, worker: int, more: int) -> bool:
        """Whether the worker, with so many more, has clearly more connections open than another one that accepts some.

        Clearly, because workers that are exactly even would do nothing but wait for each other.
        """
        mine, ready = _open_connections(self._rows[worker]) + more, _PLAN.process["ready"]
        least = min((_open_connections(row) for row in self._rows if row[ready]), default=mine)
        return mine > least + 1 + least // 8

    def render(self, version: str) -> bytes:
        """The figures of all workers in Prometheus' text format."""
        exposition = CollectorRegistry(auto_describe=False)
        exposition.register(_Figures(self._rows, version))
        return generate_latest(exposition)


def _open_connections(row: memoryview) -> int:
    return row[_PLAN.opened] - row[_PLAN.closed]


class _Figures(Collector):
    """A moment of the table, as prometheus_client's metric families."""

    def __init__(self, rows: Sequence[memoryview], version: str) -> None:
        self._rows = rows
        self._sums = [sum(column) for column in zip(*rows, strict=True)]
        self._version = version

    def collect(self) -> Iterable[Metric]:
        """Every family; series that have never counted are left out where there could be hundreds."""
        yield self._requests()
        yield self._seconds()
        yield from self._traffic()
        yield self._labelled("moorage_uploads", "Upload sessions by what became of them.", "event", _PLAN.uploads)
        yield self._labelled("moorage_refused", "Requests refused below the API.", "reason", _PLAN.refused)
        yield from self._storage()
        yield from self._connections()
        yield from self._workers()

    def _requests(self) -> Metric:
        family = CounterMetricFamily(
            "moorage_requests",
            "Requests by endpoint, method and class of status; 'cut' did not reach the end of the answer.",
            labels=("endpoint", "method", "status"),
        )
        for (endpoint, method), base in _PLAN.requests.items():
            for i, outcome in enumerate(OUTCOMES):
                if count := self._sums[base + i]:
                    family.add_metric((endpoint, method, outcome), count)
        return family

    def _seconds(self) -> Metric:
        family = HistogramMetricFamily(
            "moorage_request_seconds",
            "Time from the head of the request to the end of the answer.",
            labels=("endpoint",),
        )
        for endpoint, base in _PLAN.seconds.items():
            counts, total, buckets = self._sums[base : base + len(BUCKETS) + 1], 0, []
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                total += count
                buckets.append((bound, total))
            if total:
                family.add_metric((endpoint,), buckets, sum_value=self._sums[base + len(BUCKETS) + 1] / 1e9)
        return family

    def _traffic(self) -> Iterator[Metric]:
        texts = (
            ("moorage_received_bytes", "Bytes of request bodies."),
            ("moorage_sent_bytes", "Bytes of answers' bodies."),
        )
        for i, (name, text) in enumerate(texts):
            family = CounterMetricFamily(name, text, labels=("endpoint",))
            for endpoint, base in _PLAN.traffic.items():
                if count := self._sums[base + i]:
                    family.add_metric((endpoint,), count)
            yield family

    def _labelled(self, name: str, text: str, label: str, places: dict[str, int]) -> Metric:
        family = CounterMetricFamily(name, text, labels=(label,))
        for value, place in places.items():
            family.add_metric((value,), self._sums[place])
        return family

    def _storage(self) -> Iterator[Metric]:
        families = (
            (CounterMetricFamily("moorage_storage_operations", "Storage operations.", labels=("operation",)), 1),
            (
                CounterMetricFamily(
                    "moorage_storage_failures", "Those that the store could not do.", labels=("operation",)
                ),
                1,
            ),
            (CounterMetricFamily("moorage_storage_seconds", "Time that they took.", labels=("operation",)), 1e9),
        )
        for i, (family, scale) in enumerate(families):
            for operation, name in enumerate(OPERATIONS):
                family.add_metric((name,), self._sums[_PLAN.storage + 3 * operation + i] / scale)
            yield family

    def _connections(self) -> Iterator[Metric]:
        opened, closed = self._sums[_PLAN.opened], self._sums[_PLAN.closed]
        yield CounterMetricFamily("moorage_connections", "Connections accepted.", value=opened)
        yield GaugeMetricFamily("moorage_open_connections", "Connections open now.", value=opened - closed)
        running = self._sums[_PLAN.running]
        yield GaugeMetricFamily("moorage_running_requests", "Requests being answered now.", value=running)

    def _workers(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("moorage_info", "The program.", labels=("version",))
        info.add_metric((self._version,), 1)
        starts = CounterMetricFamily("moorage_worker_starts", "Starts, first and after a death.", labels=("worker",))
        since = GaugeMetricFamily(
            "moorage_worker_start_time_seconds", "Unix time of the last start.", labels=("worker",)
        )
        memory = GaugeMetricFamily("moorage_worker_resident_bytes", "Memory in use.", labels=("worker",))
        cpu = CounterMetricFamily("moorage_worker_cpu_seconds", "Time on a processor.", labels=("worker",))
        for i, row in enumerate(self._rows):
            pid, started, count = (row[_PLAN.process[name]] for name in ("pid", "started", "starts"))
            starts.add_metric((str(i),), count)
            since.add_metric((str(i),), started)
            if (usage := _usage(pid)) is not None:
                memory.add_metric((str(i),), usage[0])
                cpu.add_metric((str(i),), usage[1])
        yield from (info, starts, since, memory, cpu)


def _usage(pid: int) -> tuple[int, float] | None:
    """Resident bytes and processor seconds of a process; None if it is dead or this system has no ``/proc``."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
