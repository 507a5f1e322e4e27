"""What stands before a registry that asks who one is: the gate and the token server, opened and closed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from moorage.auth.errors import ConfigurationError
from moorage.registry.auth_state import StoredState
from moorage.registry.oci import Registry
from moorage.registry.outbound import Outbound
from moorage.registry.settings import Settings
from moorage.registry.web.audit import AuditLog
from moorage.registry.web.authority import Authority, Foundation
from moorage.registry.web.gate import Gate
from moorage.registry.web.login import TokenServer
from moorage.storage_backends.base import ObjectStore

__all__ = ["Entrance"]


@dataclass(frozen=True, slots=True)
class Entrance:
    """The entrance of one worker."""

    gate: Gate
    tokens: TokenServer
    _authority: Authority
    _audit: AuditLog | None

    @classmethod
    def open(cls, settings: Settings, foundation: Foundation, registry: Registry, store: ObjectStore) -> Self:
        """Made after the fork, for it has threads.

        Args:
            store: where robots and refresh tokens are kept.

        Raises:
            ConfigurationError: a file that the configuration names cannot be used, or the audit log not be opened.
        """
        authority = Authority(foundation, StoredState(store), Outbound())
        audit = _open_audit(settings.audit_log) if settings.audit_log else None
        gate = Gate(registry, authority, external_url=settings.external_url, audit=audit)
        return cls(gate, TokenServer(authority, audit=audit), authority, audit)

    async def sweep(self) -> int:
        """Removes refresh tokens that have ended; returns how many."""
        return await self._authority.refresh.sweep()

    def close(self) -> None:
        """Lets threads and files go."""
        self._authority.close()
        if self._audit is not None:
            self._audit.close()


def _open_audit(place: str) -> AuditLog:
    try:
        return AuditLog.open(place)
    except OSError as exc:
        raise ConfigurationError(f"cannot open the audit log {place}: {exc.strerror}") from exc
