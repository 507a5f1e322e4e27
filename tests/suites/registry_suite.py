"""One suite for everything that is a ``Registry``: server core, client, and stacks of them.

Law: subclass ``RegistrySuite`` as ``Test…`` and give it a ``registry`` fixture that is empty. The tests know the
protocol of ``interface.py`` only. What implements fewer roles takes the suites of those roles.
"""

from __future__ import annotations

from tests.suites.registry_deleting import DeleterSuite
from tests.suites.registry_listing import ListerSuite
from tests.suites.registry_reading import ReaderSuite
from tests.suites.registry_uploads import UploaderSuite
from tests.suites.registry_writing import MountSuite, WriterSuite

__all__ = ["DeleterSuite", "ListerSuite", "MountSuite", "ReaderSuite", "RegistrySuite", "UploaderSuite", "WriterSuite"]


class RegistrySuite(ReaderSuite, WriterSuite, MountSuite, UploaderSuite, DeleterSuite, ListerSuite):
    """All roles together."""
