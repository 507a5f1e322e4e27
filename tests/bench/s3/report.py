"""Medians, ratios and counts, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from tests.bench.s3.cases import CASES, Sample
from tests.bench.s3.counts import Counts

__all__ = ["Samples", "as_json", "counts_table", "times_table"]

Samples = Mapping[str, Mapping[str, Sequence[Sample]]]
"""By case, then by registry, one for each turn."""

_PAIRS = (("moorage", "distribution", ""), ("moorage-redirects", "distribution-redirects", ", redirected"))


def times_table(samples: Samples) -> str:
    """How long each operation takes, and how many times as fast ours is (3 is three times as fast)."""
    lines = [
        "| | Moorage | distribution | times as fast | spread | CPU of the registry, ours / theirs |",
        "|---" * 6 + "|",
    ]
    for case in CASES:
        for ours, theirs, suffix in _PAIRS:
            taken = samples.get(case.name, {})
            if ours in taken:
                lines.append(_line(case.name + suffix, taken[ours], taken[theirs], case.moved))
    return "\n".join(lines)


def _line(name: str, ours: Sequence[Sample], theirs: Sequence[Sample], moved: int) -> str:
    our, their = _middle(ours), _middle(theirs)
    figures = (
        name,
        _time(our.seconds, moved),
        _time(their.seconds, moved),
        f"{their.seconds / our.seconds:.2f}",
        f"±{_spread(ours):.0f} %, ±{_spread(theirs):.0f} %",
        f"{our.cpu * 1e3:.1f} / {their.cpu * 1e3:.1f} ms",
    )
    return f"| {' | '.join(figures)} |"


def _time(seconds: float, moved: int) -> str:
    rate = f" ({moved / seconds / 1e6:,.0f} MB/s)" if moved >= 1024 * 1024 else ""
    return f"{seconds * 1e3:,.1f} ms{rate}"


def _spread(turns: Sequence[Sample]) -> float:
    times = [turn.seconds for turn in turns]
    return 50 * (max(times) - min(times)) / statistics.median(times)


def _middle(turns: Sequence[Sample]) -> Sample:
    return Sample(statistics.median(turn.seconds for turn in turns), statistics.median(turn.cpu for turn in turns))


def counts_table(counts: Counts) -> str:
    """Requests to S3 for each operation: how many, and which."""
    lines = ["| requests to S3 | Moorage | distribution |", "|---|---|---|"]
    for name, found in counts.items():
        for ours, theirs, suffix in _PAIRS:
            if ours in found:
                lines.append(f"| {name}{suffix} | {_requests(found[ours])} | {_requests(found[theirs])} |")
    return "\n".join(lines)


def _requests(counted: Mapping[str, int]) -> str:
    parts = (f"{name} {number}" for name, number in sorted(counted.items(), key=lambda one: -one[1]))
    return f"**{sum(counted.values())}**: {', '.join(parts)}" if counted else "**0**"


def as_json(samples: Samples, counts: Counts) -> dict[str, object]:
    """Every sample, in seconds, and the counts."""
    times = {
        case: {name: [asdict(turn) for turn in turns] for name, turns in taken.items()}
        for case, taken in samples.items()
    }
    return {"times": times, "requests": counts}
