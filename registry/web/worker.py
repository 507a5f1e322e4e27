"""One worker process: a registry over the store, served until the parent says stop.

Law of stopping: on SIGTERM ``/readyz`` turns 503 at once, while connections are still accepted for ``drain_delay``
(a load balancer needs that long to look away); then the listeners close and what runs may end. A worker whose parent
is gone ends at once, as if both had been killed together.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import socket
import sys
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import uvloop
from moorage.auth.errors import AuthError, ConfigurationError
from moorage.registry.oci import OciError, Registry
from moorage.registry.settings import Settings
from moorage.registry.store import LocalRegistry
from moorage.registry.store.measured import MeasuredStore
from moorage.registry.web.access_log import AccessLog
from moorage.registry.web.app import create_app
from moorage.registry.web.certificate import LOOK_INTERVAL, Certificate
from moorage.registry.web.metrics import Meter, Table
from moorage.registry.web.middleware import observed
from moorage.registry.web.proxied import proxied
from moorage.registry.web.server import Server
from moorage.registry.wrap.read_only import NoDelete, ReadOnly
from moorage.storage_backends.base import ObjectStore
from moorage.storage_backends.errors import StorageError
from moorage.storage_backends.urls import open_store

if TYPE_CHECKING:
    from moorage.registry.web.authority import Foundation
    from moorage.registry.web.entrance import Entrance

__all__ = ["EXPIRY_INTERVAL", "Worker"]

EXPIRY_INTERVAL = 3600.0
"""Seconds between two looks for abandoned uploads, at most; a quarter of their life if that is shorter."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker needs that was made before the fork.

    ``lifeline``: a pipe that ends when the parent does. ``foundation``: of logins; None: nobody is asked for one.
    """

    settings: Settings
    sockets: list[socket.socket]
    table: Table
    certificate: Certificate | None
    lifeline: int
    foundation: Foundation | None = None

    def run(self, index: int) -> int:
        """Serves until SIGTERM; returns the exit status. ``index``: which worker this is, from 0."""
        gc.freeze()  # what was loaded before the fork stays out of collections, and its pages stay shared
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(index))
        except (StorageError, OSError) as exc:
            print(f"moorage: cannot open {self.settings.root}: {exc}", file=sys.stderr, flush=True)
            return 1
        except ConfigurationError as exc:
            print(f"moorage: {exc}", file=sys.stderr, flush=True)
            return 1
        return 0

    async def _serve(self, index: int) -> None:
        settings, meter, stopping = self.settings, self.table.meter(index), asyncio.Event()
        meter.process_started()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stopping.set)
        loop.add_reader(self.lifeline, os._exit, 1)
        store = MeasuredStore(await open_store(settings.root, read_only=settings.read_only), meter)
        try:
            if not store.capabilities.writable and index == 0:
                _log.info("%s cannot be written to: it is served as it is, logins get no refresh tokens", settings.root)
            registry = await LocalRegistry.open(store, allow_sparse=settings.allow_sparse, redirect=settings.redirect)
            entrance = self._open_entrance(_restricted(registry, settings), store)
            try:
                await self._serve_registry(registry, entrance, index, meter, stopping)
            finally:
                if entrance is not None:
                    entrance.close()
        finally:
            await store.close()

    def _open_entrance(self, registry: Registry, store: ObjectStore) -> Entrance | None:
        if self.foundation is None:
            return None
        from moorage.registry.web.entrance import Entrance  # noqa: PLC0415  # 100 ms, for nothing without logins

        return Entrance.open(self.settings, self.foundation, registry, store)

    async def _serve_registry(
        self, registry: LocalRegistry, entrance: Entrance | None, index: int, meter: Meter, stopping: asyncio.Event
    ) -> None:
        settings, certificate = self.settings, self.certificate
        if certificate is not None:
            certificate.look()  # it may have changed since the parent read it, months ago
        log = AccessLog(sys.stdout.fileno()) if settings.access_log else None
        app = create_app(
            _restricted(registry, settings),
            ready=lambda: not stopping.is_set(),
            metrics=lambda: self.table.render(version("moorage")),
            gate=entrance.gate if entrance else None,
            tokens=entrance.tokens if entrance else None,
        )
        watched = observed(app, meter, log)
        server = Server(
            proxied(watched, settings.trusted_proxies) if settings.trusted_proxies else watched,
            meter=meter,
            tls=certificate.context if certificate else None,
            drain_timeout=settings.drain_timeout,
            gives_way=lambda more: self.table.has_more(index, more),
            is_proxy=settings.trusted_proxies.__contains__,
        )
        async with asyncio.TaskGroup() as group:
            chores = []
            if index == 0 and registry.is_writable:
                chores.append(group.create_task(_expire_forever(registry, entrance, meter, settings.upload_ttl)))
            if certificate is not None:
                chores.append(group.create_task(_follow(certificate, server)))
            serving = group.create_task(server.serve(self.sockets))
            await server.listening.wait()
            meter.accepts(connections=True)
            await stopping.wait()
            await asyncio.sleep(settings.drain_delay)
            meter.accepts(connections=False)
            server.stop()
            await serving
            for chore in chores:
                chore.cancel()
        if log is not None:
            log.flush()


def _restricted(registry: Registry, settings: Settings) -> Registry:
    if settings.read_only:
        return ReadOnly(registry)
    return NoDelete(registry) if settings.no_delete else registry


async def _follow(certificate: Certificate, server: Server) -> None:
    """Lets connections that begin from now on see the certificate as its files hold it now."""
    while True:
        await asyncio.sleep(LOOK_INTERVAL)
        if certificate.look():
            server.renew(certificate.context)


async def _expire_forever(registry: LocalRegistry, entrance: Entrance | None, meter: Meter, ttl: float) -> None:
    """Drops abandoned uploads and old logins now and then; a failure is logged, and the next look may do better."""
    while True:
        await asyncio.sleep(min(EXPIRY_INTERVAL, ttl / 4) * random.uniform(0.9, 1.1))  # noqa: S311  # no secret
        try:
            if expired := await registry.expire_uploads(ttl):
                meter.uploads_expired(expired)
                _log.info("dropped %d uploads without progress for %d s", expired, ttl)
            if entrance is not None:
                await entrance.sweep()
        except (OciError, AuthError) as exc:
            _log.warning("cannot look for what has expired: %s", exc)
        except Exception:  # noqa: BLE001  # a defect here must not take the requests of this worker with it
            _log.exception("looking for what has expired failed")
