"""The pytest plugin: the fixture ``registry``, an empty registry of each test's own (see ``moorage.registry.testing``).

Law: pytest loads this module in every run wherever Moorage is installed, so it loads nothing until a test asks.
For one registry per module or session: ``with LoopbackRegistry() as registry: yield registry`` in a fixture of yours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from moorage.registry.testing import LoopbackRegistry

__all__ = ["registry"]


@pytest.fixture
def registry() -> Iterator[LoopbackRegistry]:
    """An empty registry on a loopback port, with faults on demand; ends with the test."""
    from moorage.registry.testing import LoopbackRegistry  # noqa: PLC0415 (see the law)

    with LoopbackRegistry() as running:
        yield running
