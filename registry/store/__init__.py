"""The server's core: the ``Registry`` protocol over an ``ObjectStore``."""

from moorage.registry.store.local import LocalRegistry

__all__ = ["LocalRegistry"]
