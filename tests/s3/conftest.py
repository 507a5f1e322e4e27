"""The S3 servers that the tests of this folder run on: one of each kind for the whole run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3.servers import SERVERS, S3Server, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder drives foreign programs."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.interop)
            item.add_marker(pytest.mark.s3)


@pytest.fixture(scope="session", params=list(SERVERS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture(scope="session")
def bucket(server: S3Server) -> str:
    """A bucket of the server, for everybody; use a prefix of your own."""
    return server.bucket()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute for every call: suites make thousands, and a busy machine may take seconds over one."""
    monkeypatch.setattr("moorage.storage_backends.s3.calls.DEADLINE", 60.0)
