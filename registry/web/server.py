"""The event loop's server: uvicorn's, with our connections, our signals and a sweep over the deadlines.

uvicorn takes the signals itself and closes its listeners at once; here whoever runs the server decides when it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

import uvicorn
from moorage.registry.web.acceptor import Acceptor
from moorage.registry.web.connections import ConnectionMeter, State
from moorage.registry.web.protocol import Connection

__all__ = ["Server"]

BACKLOG = 2048
"""Connections that may wait to be accepted."""

_TICK = 0.1  # seconds between two sweeps
_LAST_WORDS = 3.0  # seconds in which a cancelled request may put its things in order
_log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Serves an ASGI app on sockets that are already listening.

    Args:
        drain_timeout: seconds that running requests get once the server stops.
        gives_way: whether another worker should take the next connection.
        is_proxy: whether the connections from an address are many people's.
        connection: the class of the connections (tests shorten its deadlines).
    """

    def __init__(
        self,
        app: Any,
        *,
        meter: ConnectionMeter,
        tls: ssl.SSLContext | None = None,
        drain_timeout: float = 30.0,
        gives_way: Callable[[int], bool] = lambda _: False,
        is_proxy: Callable[[str], bool] = lambda _: False,
        connection: type[Connection] = Connection,
    ) -> None:
        config = uvicorn.Config(
            app,
            http=connection,  # made by ourselves below; named so that uvicorn does not load its own
            ws="none",
            loop="uvloop",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        super().__init__(config)
        self.server_state: State = State(meter, is_proxy)
        self.listening = asyncio.Event()
        """Set when connections are accepted."""
        self._stopping = asyncio.Event()
        self._connection = connection
        self._acceptors: list[Acceptor] = []
        self._gives_way = gives_way
        self._tls = tls
        self._drain_timeout = drain_timeout

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to accept."""
        app, state, loop = self.config.loaded_app, self.server_state, asyncio.get_running_loop()

        def connection() -> Connection:
            return self._connection(app, state, loop)

        self._acceptors = [
            Acceptor(sock, connection, tls=self._tls, gives_way=self._gives_way) for sock in sockets or []
        ]
        self.started = True
        self.listening.set()

    def renew(self, tls: ssl.SSLContext) -> None:
        """Encrypts connections that begin from now on by another context."""
        self._tls = tls
        for acceptor in self._acceptors:
            acceptor.tls = tls

    def stop(self) -> None:
        """Makes ``serve`` stop accepting, let the running requests end within the drain timeout, and return."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Ticks until it is time to stop."""
        counter = 0
        while not await self.on_tick(counter):
            counter += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the listeners, then every connection as soon as it is answered; deadlines hold on."""
        for acceptor in self._acceptors:
            acceptor.close()
        state, loop = self.server_state, asyncio.get_running_loop()
        for connection in list(state.connections):
            connection.shutdown()
        end = loop.time() + self._drain_timeout
        while (state.connections or state.tasks) and loop.time() < end:
            await asyncio.sleep(_TICK / 10)
            state.sweep(loop.time())
        await _cancel(state.tasks)

    async def on_tick(self, counter: int) -> bool:
        """Every 100 ms: refreshes the Date header and expires connections. Says whether to stop."""
        stop = await super().on_tick(counter)
        state = self.server_state
        if counter % 10 == 0:
            state.date_line = b"date: " + state.default_headers[0][1] + b"\r\n"
        state.sweep(asyncio.get_running_loop().time())
        return stop

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        """Leaves the signals alone."""
        return contextlib.nullcontext()


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    """Cuts what did not end in time; an upload still records what it has."""
    for task in tasks:
        task.cancel()
    if tasks:
        _log.warning("%d requests did not end in time and are cut", len(tasks))
        await asyncio.wait(tasks, timeout=_LAST_WORDS)
