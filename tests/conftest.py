"""What every test session shares: in CI nothing may be skipped silently.

Law: with ``--no-skips`` a skip is a failure, except under the marker ``conformance``, whose program no package
registry carries. No outcome hangs on how busy the machine is: property tests have no time limit per example (Hypothesis
gives 200 ms unless told otherwise), and in CI they draw the same examples every time.
"""

from __future__ import annotations

import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])

# A shell starts what runs in the background with Ctrl-C ignored, and programs would inherit it from us through exec:
# tests that interrupt a program need one that can be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--no-skips``."""
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failed one (CI)")


def pytest_configure(config: pytest.Config) -> None:
    """Chooses how property tests run, before any is imported."""
    settings.load_profile("ci" if config.getoption("--no-skips") else "unhurried")


def _refuse_skip(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> None:
    if config.getoption("--no-skips") and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns the skip of a test into a failure."""
    report = yield
    if item.get_closest_marker("conformance") is None:
        _refuse_skip(item.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turns the skip of a whole module into a failure."""
    report = yield
    _refuse_skip(collector.config, report)
    return report
