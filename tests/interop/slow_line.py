"""A line to a server that is slow where it matters: what sends much takes its time, everything else passes.

Law: bytes pass unchanged and in order. Of a connection that has carried more than ``FREE`` bytes one way the rest
trickles until the line is opened, ``hold`` seconds after the first such connection; from then on all passes at once.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from tests.inthread import InThread

__all__ = ["FREE", "SlowLine"]

FREE = 192 * 1024
_TRICKLE, _PAUSE = 2048, 0.25
"""Bytes, and seconds between them: 8 KiB a second, which nobody takes for a dead connection."""


class SlowLine(InThread):
    """``with SlowLine("127.0.0.1:5000", hold=95) as line:`` listens at ``line.host``."""

    host: str

    def __init__(self, server: str, *, hold: float) -> None:
        name, _, port = server.rpartition(":")
        self._server, self._hold = (name, int(port)), hold
        self.held_since = 0.0

    async def _open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection(*self._server)
        ways = [asyncio.create_task(self._pass(reader, ahead)), asyncio.create_task(self._pass(behind, writer))]
        try:
            with suppress(asyncio.CancelledError):  # the end of the line; the streams would complain about it
                await asyncio.wait(ways)
        finally:
            writer.close()
            ahead.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await self._pass_slowly(reader, writer)
        writer.close()

    async def _pass_slowly(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while piece := await reader.read(_TRICKLE if passed >= FREE and not self._is_open() else FREE):
            writer.write(piece)
            await writer.drain()
            passed += len(piece)
            if passed >= FREE and not self._is_open():
                self.held_since = self.held_since or time.monotonic()
                await asyncio.sleep(_PAUSE)

    def _is_open(self) -> bool:
        return self.held_since > 0 and time.monotonic() >= self.held_since + self._hold
