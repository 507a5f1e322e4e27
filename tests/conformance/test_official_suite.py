"""The official conformance suite of the distribution specification, every switch on, judged strictly.

Law: a run counts only if every API and data switch was on and every single check passed: 0 failed, 0 skipped,
0 disabled, 0 errors. The suite's own reports are the evidence; they stay under ``results/conformance/``.
One exception, spelled out: where clients are sent to an S3 server, the suite looks for ``Docker-Content-Digest`` in
what that one answers, and no S3 server can be made to send it. Our redirect carries it (``tests/wire/test_redirects``).

The suite is in no package registry: build it from its repository and name the binary by ``CONFORMANCE=...``, or put
``conformance`` on PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tests.s3.replicas import SETUPS, Setup, serving_twice
from tests.s3.servers import running
from tests.servers import MoorageProcess

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(600)]

BINARY = os.environ.get("CONFORMANCE") or shutil.which("conformance")
REPORTS = Path(__file__).parents[2] / "results" / "conformance"
FEWEST = 1000
"""Checks below which the suite cannot have run whole with every switch on (it counted 1,032 in November 2026)."""

OFF_BY_DEFAULT = (
    "OCI_API_BLOBS_DIGEST_HEADER",
    "OCI_API_BLOBS_MOUNT_ANONYMOUS",
    "OCI_API_BLOBS_UPLOAD_CANCEL",
    "OCI_API_MANIFESTS_DIGEST_HEADER",
    "OCI_API_MANIFESTS_TAG_PARAM",
    "OCI_DATA_SPARSE",
    "OCI_DATA_SHA512",
)
"""Switches that one of the versions leaves off. That none is missing here, the test reads from the suite's report."""


DIGEST_OF_BLOBS = ("OCI_API_BLOBS_DIGEST_HEADER", "apis.blobs.digestHeader")
"""The switch that is off where clients are redirected, by its name for the suite and in its report."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the suite reported: its exit status, each switch, the status of each area, its totals, its leaves by status.

    ``total`` and ``troubles`` (failures, errors, skipped, disabled) count all checks, ``leaves`` the childless ones.
    """

    exit_status: int
    switches: dict[str, bool]
    areas: dict[str, str]
    total: int
    troubles: dict[str, int]
    leaves: Counter[str]


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def run_suite(
    url: str, version: str, reports: Path, *, redirect: bool = False, more: Mapping[str, str] | None = None
) -> Outcome:
    """Runs the suite against the registry at ``url`` and reads its two reports. ``more``: further variables."""
    assert BINARY is not None
    shutil.rmtree(reports, ignore_errors=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OCI_")},
        **dict.fromkeys(OFF_BY_DEFAULT, "true"),
        **({DIGEST_OF_BLOBS[0]: "false"} if redirect else {}),
        "OCI_REGISTRY": url.partition("://")[2],
        "OCI_TLS": "enabled" if url.startswith("https:") else "disabled",
        "OCI_VERSION": version,
        "OCI_RESULTS_DIR": str(reports),
        **(more or {}),
    }
    done = subprocess.run([BINARY], env=environment, cwd=reports.parent, capture_output=True, text=True, timeout=500)
    assert (reports / "results.yaml").exists(), done.stdout + done.stderr
    report = yaml.safe_load((reports / "results.yaml").read_text())
    config = report["config"]
    junit = ElementTree.parse(reports / "junit.xml").getroot().find("testsuite")  # noqa: S314  # the suite's own file
    assert junit is not None
    return Outcome(
        done.returncode,
        dict(_leaves({"apis": config["apis"], "data": config["data"]})),
        {**report["apis"], **report["data"]},
        int(junit.attrib["tests"]),
        {kind: int(junit.attrib.get(kind, "0")) for kind in ("failures", "errors", "skipped", "disabled")},
        Counter(case.attrib["status"] for case in junit.iter("testcase")),
    )


@pytest.mark.skipif(BINARY is None, reason="no `conformance` on PATH and CONFORMANCE is not set")
@pytest.mark.parametrize("workers", [pytest.param(1, id="1 worker"), pytest.param(4, id="4 workers")])
@pytest.mark.parametrize("version", ["1.1", "dev"])
def test_every_check_passes(version: str, workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every check of the suite passes, none is skipped and none is switched off."""
    with MoorageProcess(tmp_path / "root", "--allow-sparse", workers=workers) as server:
        judge(server.url, version, f"{workers} worker(s)", capsys)


@pytest.mark.skipif(BINARY is None, reason="no `conformance` on PATH and CONFORMANCE is not set")
@pytest.mark.parametrize("setup", SETUPS, ids=str)
@pytest.mark.parametrize("version", ["1.1", "dev"])
def test_every_check_passes_over_s3(
    version: str, setup: Setup, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over a bucket, by two replicas of which each gets every second request, uploads included."""
    with (
        running(setup.server, tmp_path) as server,
        serving_twice(server, "--allow-sparse", redirect=setup.redirect) as replicas,
    ):
        judge(replicas.url, version, str(setup), capsys, redirect=setup.redirect)


def judge(
    url: str,
    version: str,
    what: str,
    capsys: pytest.CaptureFixture[str],
    *,
    redirect: bool = False,
    more: Mapping[str, str] | None = None,
) -> None:
    """Runs the suite, see ``run_suite``, and lets nothing but a clean sheet pass. ``what``: names the reports."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    outcome = run_suite(url, version, REPORTS / f"{version} {what}".replace(" ", "-"), redirect=redirect, more=more)
    with capsys.disabled():
        print(f"\nconformance {version}, {what}: {outcome.total} checks, {outcome.troubles}")
    off = [name for name, on in outcome.switches.items() if on is not True]
    assert off == ([DIGEST_OF_BLOBS[1]] if redirect else [])
    assert {name: status for name, status in outcome.areas.items() if status != "Pass"} == {}
    assert set(outcome.troubles.values()) == {0}
    assert set(outcome.leaves) == {"passed"}
    assert outcome.total >= FEWEST
    assert outcome.exit_status == 0
