"""What is shipped in ``deploy/``, run for real: as root, with foreign programs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.stack import Stack, as_shipped, stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is ``interop`` and needs root, as container builds do."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.interop)
            item.add_marker(pytest.mark.root)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The compose file's services, running."""
    with stack(tmp_path_factory.mktemp("stack"), as_shipped) as running:
        yield running
