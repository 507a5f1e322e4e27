"""The event loop's server: uvicorn's, with our connections, our signals and a sweep over the deadlines.

uvicorn takes the signals itself and closes its listeners at once; here whoever runs the server decides when it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

import uvicorn
from moorage.registry.web.protocol import Connection, ConnectionMeter, State

__all__ = ["Server"]

BACKLOG = 2048
HANDSHAKE_SECONDS = 10.0
"""Seconds for a TLS handshake: the deadline of a head, for the part of a connection that we never see."""


class Server(uvicorn.Server):
    """Serves an ASGI app on sockets that are already listening.

    Args:
        drain_timeout: seconds that running requests get once the server stops.
        connection: the class of the connections (tests shorten its deadlines).
    """

    def __init__(
        self,
        app: Any,
        *,
        meter: ConnectionMeter,
        tls: ssl.SSLContext | None = None,
        drain_timeout: float = 30.0,
        connection: type[Connection] = Connection,
    ) -> None:
        config = uvicorn.Config(
            app,
            http=connection,
            ws="none",
            loop="uvloop",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=drain_timeout,  # type: ignore[arg-type]  # any number of seconds will do
        )
        super().__init__(config)
        self.server_state: State = State(meter)
        self.listening = asyncio.Event()
        """Set when connections are accepted."""
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to accept."""
        config, loop = self.config, asyncio.get_running_loop()
        handshake = HANDSHAKE_SECONDS if self._tls else None
        self.servers = [
            await loop.create_server(
                lambda: config.http_protocol_class(config, self.server_state, {}, loop),  # type: ignore[call-arg]
                sock=sock,
                ssl=self._tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=handshake,
            )
            for sock in sockets or []
        ]
        self.started = True
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the listeners, then every connection as soon as it is answered; deadlines hold on."""
        sweeping = asyncio.create_task(self._sweep_on())
        try:
            await super().shutdown(sockets)
        finally:
            sweeping.cancel()

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            self.server_state.sweep(asyncio.get_running_loop().time())

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
