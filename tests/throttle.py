"""A proxy that makes a near server a far one: a round trip takes time, and each connection carries only so much.

    python -m tests.throttle 127.0.0.1:5000 --round-trip 0.05 --rate 20e6

Law: what goes in comes out, unchanged and in order, late. A process of its own, so that it costs the client no time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["throttled"]

_PIECE = 64 * 1024


@dataclass(frozen=True)
class Line:
    """How far the server is. ``delay``: seconds one way; ``rate``: bytes per second from the server, per connection."""

    host: str
    port: int
    delay: float
    rate: float

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        await asyncio.sleep(2 * self.delay)  # the handshake
        far_reader, far_writer = await asyncio.open_connection(self.host, self.port, limit=_PIECE)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, float("inf")))
                group.create_task(self._pump(far_reader, writer, self.rate))
        except* ConnectionError:
            pass  # one side is gone, which is told to the other
        finally:
            writer.close()
            far_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float) -> None:
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=64)  # 4 MiB in flight
        async with asyncio.TaskGroup() as group:
            group.create_task(self._enter(reader, line))
            free = 0.0
            while True:
                entered, piece = await line.get()
                due = max(entered + self.delay, free)
                free = due + len(piece) / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if not piece:
                    writer.close()
                    return
                if writer.is_closing():
                    raise ConnectionError
                writer.write(piece)
                await writer.drain()

    async def _enter(self, reader: asyncio.StreamReader, line: asyncio.Queue[tuple[float, bytes]]) -> None:
        piece = b"-"
        while piece:
            try:
                piece = await reader.read(_PIECE)
            except ConnectionError:
                piece = b""
            await line.put((time.monotonic(), piece))


@contextlib.contextmanager
def throttled(server: str, *, round_trip: float = 0.05, rate: float = 20e6) -> Iterator[str]:
    """``HOST:PORT`` of a proxy in front of ``server`` (``HOST:PORT``)."""
    command = [sys.executable, "-m", "tests.throttle", server, "--round-trip", str(round_trip), "--rate", str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


async def _serve(line: Line) -> None:
    server = await asyncio.start_server(line.carry, "127.0.0.1", 0, limit=_PIECE)
    print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server")
    parser.add_argument("--round-trip", type=float, default=0.05)
    parser.add_argument("--rate", type=float, default=20e6)
    given = parser.parse_args()
    host, _, port = given.server.rpartition(":")
    asyncio.run(_serve(Line(host, int(port), given.round_trip / 2, given.rate)))


if __name__ == "__main__":
    _main()
