"""What is asked of the store for a blob that many manifests of a repository need."""

from __future__ import annotations

from collections.abc import AsyncIterator

from moorage.registry.store import LocalRegistry
from moorage.storage_backends.base import CommonPrefix, ObjectInfo
from moorage.storage_backends.memory import MemoryStore

from tests.content import image, push, repository


class _Counting(MemoryStore):
    """Counts the entries that its listings show."""

    shown = 0

    async def list(
        self, prefix: str, *, after: str = "", delimiter: str | None = None
    ) -> AsyncIterator[ObjectInfo | CommonPrefix]:
        async for entry in super().list(prefix, after=after, delimiter=delimiter):
            self.shown += 1
            yield entry


async def test_a_shared_layer_costs_a_push_no_more_than_any_other() -> None:
    """Base layers are shared by every image of a repository: the thousandth push is as cheap as the second."""
    store = _Counting()
    registry = await LocalRegistry.open(store)
    await push(registry, repository(), image("shared"))
    costs = []
    for number in range(20):
        store.shown = 0
        await registry.push_manifest(repository(), image("shared", annotations={"number": str(number)}).manifest)
        costs.append(store.shown)
    assert costs == costs[:1] * 20
