"""Real servers for tests: an app served in this loop as by a worker, and ``moorage serve`` as a process of its own.

Law: always a free port of 127.0.0.1, always stopped again, and nothing of the caller's environment leaks in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from moorage.registry.web.metrics import Table
from moorage.registry.web.protocol import Connection
from moorage.registry.web.server import Server

__all__ = ["MoorageProcess", "serving"]

_URL = re.compile(r"Moorage serves .* on (https?://(?:[0-9.]+|\[[0-9a-f:]+\]):[0-9]+)")
"""The store's URL may stand in a warning before."""


@contextlib.asynccontextmanager
async def serving(
    app: Any,
    *,
    connection: type[Connection] = Connection,
    tls: ssl.SSLContext | None = None,
    is_proxy: Callable[[str], bool] = lambda _: False,
) -> AsyncIterator[str]:
    """Serves an ASGI app on a free port, as our workers do; yields ``http://127.0.0.1:PORT``, with ``tls`` https.

    Args:
        connection: the class of the connections, for tests that shorten its deadlines.
        is_proxy: who may bring any number of connections.
    """
    scheme = "https" if tls else "http"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        meter = Table(workers=1).meter(0)
        server = Server(app, meter=meter, drain_timeout=2, connection=connection, tls=tls, is_proxy=is_proxy)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve([listener]))
            try:
                async with asyncio.timeout(60):
                    await server.listening.wait()
                yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.stop()


class MoorageProcess:
    """``moorage serve`` on a free loopback port. Use it as a context manager; leaving kills whatever is left.

    Args:
        root: where the images are kept.
        workers: how many worker processes.
        arguments: further command line arguments.
        environment: further environment variables.
        log: a file that takes the access log; without it there is none.
    """

    def __init__(
        self,
        root: Path | str,
        *arguments: str,
        workers: int = 1,
        environment: dict[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.command = [
            *(str(Path(sys.executable).with_name("moorage")), "serve", "--listen", "127.0.0.1:0"),
            *("--root", str(root), "--workers", str(workers)),
            *(() if log else ("--no-access-log",)),
            *arguments,
        ]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MOORAGE_")}
        self._environment = clean | (environment or {})
        self._log = log
        self._said: list[str] = []
        self._ready = threading.Event()
        self.url = ""

    def __enter__(self) -> MoorageProcess:
        with open(self._log or os.devnull, "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.PIPE,
                start_new_session=True,  # a process group of its own, so that kill() reaches the workers too
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(60) or not self.url:
            self.kill()
            raise AssertionError(f"moorage serve did not start: {self.errors}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGINT)  # the second signal: do not wait for anybody
        self.kill()

    @property
    def errors(self) -> str:
        """What the server has written to stderr so far."""
        return "".join(self._said)

    def stop(self, *, timeout: float = 60) -> int:
        """Sends SIGTERM and waits for the end; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout=timeout)

    def wait(self, *, timeout: float = 60) -> int:
        """Waits for the end; returns the exit status."""
        status = self.process.wait(timeout)
        self._reader.join(timeout)
        return status

    def kill(self) -> None:
        """Kills the server and all its workers with SIGKILL, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()
        if self.process.stderr:
            self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._said.append(text := line.decode("utf-8", "replace"))
            if (found := _URL.search(text)) and not self.url:
                self.url = found[1]
                self._ready.set()
        self._ready.set()
