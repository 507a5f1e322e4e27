"""Medians and ratios of what was measured, for people (tables) and for programs (JSON)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple

from tests.bench.cases import Case, Sample

__all__ = ["Results", "as_json", "ratios", "table"]

Results = Mapping[str, Mapping[str, Sequence[Sample]]]
"""Samples by case, then by registry, one per round."""

_MIB = 1024 * 1024
_BASE = "distribution"


def table(case: Case, samples: Mapping[str, Sequence[Sample]]) -> str:
    """One case as lines of text: medians over the rounds, and the spread of the rate."""
    lines = [
        f"{case.name}",
        f"  {'':16}{'per s':>9}{'±%':>4}{'MB/s':>7}{'p50 ms':>9}{'p99 ms':>9}{'CPU us':>9}{'MiB':>6}{'x dist':>8}",
    ]
    base = _median(samples[_BASE]).rate if _BASE in samples else None
    return "\n".join([*lines, *(_line(name, rounds, base) for name, rounds in samples.items())])


def _line(name: str, rounds: Sequence[Sample], base: float | None) -> str:
    middle, rates = _median(rounds), [sample.rate for sample in rounds]
    figures = (
        f"{_figure(middle.rate):>9}",
        f"{50 * (max(rates) - min(rates)) / middle.rate:4.0f}",
        f"{middle.moved_per_second / 1e6:7,.0f}",
        f"{middle.p50 * 1e3:9.2f}",
        f"{middle.p99 * 1e3:9.2f}",
        f"{middle.cpu_per_request * 1e6:9,.0f}",
        f"{middle.peak / _MIB:6.0f}",
        f"{middle.rate / base:8.2f}" if base else "",
    )
    return f"  {name:16}{''.join(figures)}"


def ratios(results: Results) -> str:
    """The rates and the processor time of Moorage over those of the others, as a Markdown table.

    A rate of 3.0 is three times as fast; a CPU of 0.5 costs half.
    """
    ours, others = _split(results)
    header = [f"{name} / {other}" for name in ours for other in others]
    lines = [f"| rate; CPU per request | {' | '.join(header)} |", "|---" * (len(header) + 1) + "|"]
    for case, samples in results.items():
        cells = [_compare(samples[name], samples[other]) for name in ours for other in others]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def as_json(results: Results) -> dict[str, object]:
    """Every sample and the medians, in seconds and bytes."""
    return {
        case: {
            name: {"median": asdict(_median(rounds)), "rounds": [asdict(sample) for sample in rounds]}
            for name, rounds in samples.items()
        }
        for case, samples in results.items()
    }


def _split(results: Results) -> tuple[list[str], list[str]]:
    names = list(next(iter(results.values())))
    return [n for n in names if n.startswith("moorage")], [n for n in names if not n.startswith("moorage")]


def _compare(ours: Sequence[Sample], theirs: Sequence[Sample]) -> str:
    our, their = _median(ours), _median(theirs)
    cpu = f"{our.cpu_per_request / their.cpu_per_request:.2f}" if their.cpu_per_request else "-"
    return f"{our.rate / their.rate:.2f}; {cpu}"


def _median(rounds: Sequence[Sample]) -> Sample:
    rate, moved, p50, p99, cpu, peak = (statistics.median(column) for column in zip(*map(astuple, rounds), strict=True))
    return Sample(rate, moved, p50, p99, cpu, round(peak))


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
