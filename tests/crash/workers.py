"""Processes that work until they die, and what they said before.

Law: a worker tells what it is about to do before it does it, and that it is done when it was told so; both lines leave
the process at once, through a pipe that outlives it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from moorage.registry.oci import Unavailable
from moorage.storage_backends.errors import StorageUnavailable

__all__ = ["Line", "Say", "Worker"]

_PIPE = 1 << 20
"""Room for what a worker says while nobody listens: it is heard only after its death."""

Line = dict[str, Any]
Say = Callable[[Line], None]


class Worker:
    """A forked process that runs ``work(say)``. Its parent has no thread and no running event loop."""

    def __init__(self, work: Callable[[Say], Awaitable[None]]) -> None:
        self._read, write = os.pipe()
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE)
        self._pid = os.fork()
        if self._pid == 0:
            _become_worker(work, write)
        os.close(write)

    def kill(self) -> list[Line]:
        """Kills the process, at whatever it is, and returns what it said."""
        os.kill(self._pid, signal.SIGKILL)
        try:
            return list(self._lines())
        finally:
            os.close(self._read)
            os.waitpid(self._pid, 0)

    def _lines(self) -> Iterator[Line]:
        with open(self._read, closefd=False) as pipe:
            for line in pipe:
                if line.endswith("\n"):  # else it died in the middle of a word
                    yield json.loads(line)


def _become_worker(work: Callable[[Say], Awaitable[None]], pipe: int) -> None:
    def say(line: Line) -> None:
        os.write(pipe, json.dumps(line).encode() + b"\n")

    try:
        asyncio.run(_run(work, say))
    except BaseException:  # noqa: BLE001  # whatever it is, the parent has to hear of it
        say({"what": "died", "trace": traceback.format_exc()})
    finally:
        sys.stdout.flush()
        os._exit(0)


async def _run(work: Callable[[Say], Awaitable[None]], say: Say) -> None:
    def complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        say({"what": "died", "trace": f"{context['message']}: {context.get('exception')!r}"})

    asyncio.get_running_loop().set_exception_handler(complain)
    try:
        await work(say)
    except* (StorageUnavailable, Unavailable):
        say({"what": "stopped", "trace": traceback.format_exc()})
