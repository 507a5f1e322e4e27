"""The official suite again, as somebody who has to log in: over TLS, with tokens, every switch on, judged alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conformance.test_official_suite import BINARY, judge
from tests.deploy.stack import PASSWORD, USER, stack
from tests.interop.secured import ALICE, Authority, account_line
from tests.servers import MoorageProcess

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.timeout(600),
    pytest.mark.skipif(BINARY is None, reason="no `conformance` on PATH and CONFORMANCE is not set"),
    pytest.mark.parametrize("version", ["1.1", "dev"]),
]


def _as(user: str, password: str, authority: Path) -> Mapping[str, str]:
    return {"OCI_USERNAME": user, "OCI_PASSWORD": password, "SSL_CERT_FILE": str(authority)}


@pytest.mark.parametrize("workers", [pytest.param(1, id="1 worker"), pytest.param(4, id="4 workers")])
def test_every_check_passes(version: str, workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With accounts and nothing else configured."""
    authority = Authority.at(tmp_path)
    (tmp_path / "htpasswd").write_text(account_line(*ALICE))
    chain, key = authority.vouch(tmp_path)
    words = ("--htpasswd", str(tmp_path / "htpasswd"), "--tls-cert", chain, "--tls-key", key, "--allow-sparse")
    with MoorageProcess(tmp_path / "root", *words, workers=workers) as server:
        judge(server.url, version, f"login {workers} worker(s)", capsys, more=_as(*ALICE, authority.certificate))


def test_every_check_passes_behind_nginx(version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two replicas over a bucket, behind nginx as ``deploy/`` ships it, under an external URL."""

    def sparse(environment: dict[str, str]) -> dict[str, str]:
        return environment | {"MOORAGE_ALLOW_SPARSE": "true"}

    with stack(tmp_path, sparse) as running:
        judge(running.url, version, "login nginx", capsys, more=_as(USER, PASSWORD, running.ca))
