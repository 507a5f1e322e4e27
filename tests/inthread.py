"""A server in a thread, with an event loop of its own, while a block lasts: tests that block can talk to it.

Law: when the block ends, the server is closed, what it was doing is cancelled, and the thread has ended.
"""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Any, Self

__all__ = ["InThread"]


class InThread:
    """``with`` it: ``_open`` has run in the thread before the block begins."""

    def __enter__(self) -> Self:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run()), name=type(self).__name__.lower(), daemon=True
        )
        self._thread.start()
        assert self._ready.wait(60), f"{self._thread.name} did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _keep(self, loop: asyncio.AbstractEventLoop, work: Any, **arguments: Any) -> asyncio.Task[Any]:
        """A task that lives until it is done. asyncio itself holds the one of a connection only until its client has
        left; while it then waits for something that only it knows, it is garbage."""
        task = asyncio.Task(work, loop=loop, **arguments)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _open(self) -> asyncio.Server:
        """Starts to listen."""
        raise NotImplementedError

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_task_factory(self._keep)
        server = await self._open()
        self._ready.set()
        await self._stop.wait()
        server.close()  # what still runs is cancelled by the end of the loop
