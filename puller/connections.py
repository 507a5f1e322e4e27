"""Registries in use: one connection pool each, so that a copy within one registry is seen as such."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from moorage.puller.events import OnEvent, Warned
from moorage.puller.hosts import HostConfig
from moorage.puller.messages import RetryPolicy, Timeouts
from moorage.puller.remote import RemoteRegistry

if TYPE_CHECKING:
    from moorage.puller.credentials import Keys
    from moorage.puller.fetch.host import Host
    from moorage.puller.mirrors import Mirrored

__all__ = ["Connections"]


class Connections:
    """Use it in ``async with``; several tasks may ask it. Arguments as of ``RemoteRegistry.connect``.

    Args:
        on_event: is told what people should know of a registry, once each (rule N3: never silent).
    """

    def __init__(
        self,
        *,
        keychain: Keys | None,
        hosts: HostConfig | None,
        retry: RetryPolicy | None,
        timeouts: Timeouts | None,
        on_event: OnEvent,
    ) -> None:
        self._stack = AsyncExitStack()
        self._remotes: dict[str, RemoteRegistry] = {}
        self._hosts_known: dict[str, Host] = {}
        self._lock = asyncio.Lock()
        self._keychain, self._hosts, self._retry, self._timeouts = keychain, hosts, retry, timeouts
        self._on_event = on_event

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, exc, trace)

    async def remote(self, registry: str) -> RemoteRegistry:
        """The registry at ``host`` or ``host:port``; connected to when it is first asked something.

        Raises:
            HostsInvalid: the configuration of registries cannot be meant.
        """
        async with self._lock:
            if registry not in self._remotes:
                self._remotes[registry] = await self._connect(registry)
            return self._remotes[registry]

    async def source(self, registry: str) -> RemoteRegistry | Mirrored:
        """The registry for a pull: behind its mirrors, if it has any. Otherwise as ``remote``."""
        home = await self.remote(registry)
        mirrors = self._configured().of(registry).mirrors
        if not mirrors:
            return home
        from moorage.puller.mirrors import Front, Mirrored  # noqa: PLC0415 (few have mirrors)

        fronts = [Front(str(mirror), await self.remote(mirror.registry), mirror.name_of) for mirror in mirrors]
        return Mirrored(fronts, home, on_event=self._on_event)

    def host(self, registry: str) -> Host:
        """What fetches have learned of the registry: whether it has ranges, how many connections are worth it."""
        from moorage.puller.fetch.host import Host  # noqa: PLC0415 (what is there already is not fetched)

        return self._hosts_known.setdefault(registry, Host())

    def _configured(self) -> HostConfig:
        if self._hosts is None:
            self._hosts = HostConfig.load()
        return self._hosts

    async def _connect(self, registry: str) -> RemoteRegistry:
        hosts = self._configured()
        for remark in hosts.of(registry).remarks:
            self._on_event(Warned(remark))
        connecting = RemoteRegistry.connect(
            registry, keychain=self._keychain, hosts=hosts, retry=self._retry, timeouts=self._timeouts
        )
        return await self._stack.enter_async_context(connecting)
