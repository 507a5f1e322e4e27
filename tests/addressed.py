"""A store in memory that has an address: a fake for what is done with presigned URLs. Nobody listens there."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from moorage.storage_backends.base import Capabilities
from moorage.storage_backends.memory import MemoryStore

__all__ = ["ADDRESS", "AddressedStore"]

ADDRESS = "https://store.invalid/bucket"


class AddressedStore(MemoryStore):
    """Gives URLs that say what they were asked for."""

    capabilities = Capabilities(conditional_delete=True, presigns=True)

    async def presign(self, key: str, ttl: int, *, headers: Mapping[str, str]) -> str | None:
        """See ``ObjectStore.presign``."""
        pinned = {f"response-{name}": value for name, value in headers.items()}
        return f"{ADDRESS}/{key}?{urlencode({'expires': ttl, **pinned, 'signature': 'secret'})}"
