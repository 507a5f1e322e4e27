"""What every ``ObjectStore`` does. A store proves itself by a subclass with a fixture named ``store``.

Law: nothing here knows a store from the inside; what only one of them has is tested beside its subclass.
"""

from __future__ import annotations

from tests.suites.store_listing import ListRules
from tests.suites.store_objects import CopyAndDeleteRules, KeyRules, ObjectRules, SwapRules
from tests.suites.store_uploads import UploadRules

__all__ = ["StoreSuite"]


class StoreSuite(ObjectRules, SwapRules, CopyAndDeleteRules, KeyRules, ListRules, UploadRules):
    """The contract of the storage port."""
