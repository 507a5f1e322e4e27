"""A registry with a few images behind a slow line that counts, as a process of its own.

    python -m tests.crash.scene COUNTER

It prints ``HOST:PORT`` of the line and runs until its stdin ends. COUNTER is a file of eight bytes: how many bytes went
to the clients so far. The line's send buffers are small, so what was counted was nearly received.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import random
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from moorage.registry.testing import LoopbackRegistry

__all__ = ["BIG", "IMAGES", "LINE_BUFFER", "Scene", "layer_files", "scene"]

LINE_BUFFER: Final = 64 * 1024
"""Bytes that the line may hold for a client, beyond what the client's own socket holds."""

IMAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "team/base:v1": ("base",),
    "team/app:v1": ("base", "libraries", "app"),
    "team/app:v2": ("base", "libraries", "fix"),
    "else/tool:v1": ("base", "tool"),
}
"""What the registry holds: images by the names of their layers."""

BIG: Final = "team/big:v1"
"""An image of two layers that take a while."""

_RATE = 12e6  # bytes a second, for each connection
_PIECE = 16 * 1024


def layer_files(name: str) -> dict[str, bytes]:
    """The files of a layer: about 1 MB that cannot be compressed, 12 MB for those of the big image."""
    source = random.Random(name)
    count, size = (4, 3_000_000) if name.startswith("big") else (10, 100_000)
    return {f"{name}/{number // 4}/{number}": source.randbytes(size) for number in range(count)}


@dataclass(frozen=True, slots=True)
class Scene:
    """The scene as its users see it. ``host``: of references."""

    host: str
    counter: Path

    def sent(self) -> int:
        """Bytes that went to clients so far."""
        return int.from_bytes(self.counter.read_bytes(), "little")


@contextlib.contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """Runs one while the block does; the caller stays without threads."""
    counter = folder / "sent"
    counter.write_bytes(bytes(8))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.scene", str(counter)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            yield Scene(process.stdout.readline().decode().strip(), counter)
        finally:
            process.kill()


class _Line:
    """The slow line."""

    def __init__(self, server: str, counter: mmap.mmap) -> None:
        self._host, _, port = server.rpartition(":")
        self._port = int(port)
        self._counter = counter
        self._sent = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LINE_BUFFER // 2)
        writer.transport.set_write_buffer_limits(high=_PIECE)
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port, limit=_PIECE)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pump_up(reader, far_writer), self._pump_down(far_reader, writer))
        writer.close()
        far_writer.close()

    async def _pump_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(_PIECE):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def _pump_down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            await asyncio.sleep(len(piece) / _RATE)
            writer.write(piece)
            await writer.drain()
            self._sent += len(piece)
            self._counter[:] = self._sent.to_bytes(8, "little")
        writer.close()


async def _serve(server: str, counter: mmap.mmap) -> None:
    listener = await asyncio.start_server(_Line(server, counter).carry, "127.0.0.1", 0, limit=_PIECE)
    print(f"127.0.0.1:{listener.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


def _main() -> None:
    with LoopbackRegistry() as registry, open(sys.argv[1], "r+b") as file:
        for name, layers in {**IMAGES, BIG: ("big one", "big two")}.items():
            registry.add_image(name, *map(layer_files, layers))
        asyncio.run(_serve(registry.host, mmap.mmap(file.fileno(), 8)))


if __name__ == "__main__":
    _main()
