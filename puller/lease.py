"""Who is using a store, and who takes things out of it.

Law: every operation that relies on what a store holds (a pull, a push out of it, a copy into it, an unpack) holds the
lease ``locks/in-use`` together with all the others; nothing is removed but by someone who holds it alone. Both are
flocks, so a kill ends them. One lease an operation, never one inside another.

Whoever wants it alone first closes ``locks/gate``, through which everyone enters: those inside finish, newcomers wait,
so an unbroken row of pulls cannot keep a prune out for ever. It gives up at its deadline and opens the gate again; and
it holds the store only while it renames, so the others wait for milliseconds once it is in.

Whoever may only read a store shares the locks that are there; where there are none, nobody has used it yet.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from moorage.puller.errors import StoreInUse
from moorage.puller.staging import is_writable

__all__ = ["hold_alone", "hold_shared"]

_FOLDER = "locks"
_PAUSE = 0.01


@contextmanager
def hold_shared(root: str) -> Iterator[None]:
    """For the block's time nothing is removed from the store. Waits while somebody removes; blocks, so in a thread."""
    is_mine = is_writable(root)
    if not is_mine and not os.path.exists(os.path.join(root, _FOLDER, "in-use")):
        yield
        return
    with ExitStack() as stack:
        gate, in_use = (_open(root, name, stack, may_make=is_mine) for name in ("gate", "in-use"))
        fcntl.flock(gate, fcntl.LOCK_SH)
        fcntl.flock(in_use, fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@contextmanager
def hold_alone(root: str, *, wait: float) -> Iterator[None]:
    """For the block's time nobody uses the store.

    Args:
        wait: seconds that others get to finish; newcomers wait no longer than that.

    Raises:
        StoreInUse: they did not.
    """
    deadline = time.monotonic() + wait
    with ExitStack() as stack:
        for name in ("gate", "in-use"):
            _lock(_open(root, name, stack), deadline, root)
        yield


def _open(root: str, name: str, stack: ExitStack, *, may_make: bool = True) -> int:
    folder = os.path.join(root, _FOLDER)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    access = os.O_RDWR | os.O_CREAT if may_make else os.O_RDONLY
    descriptor = os.open(os.path.join(folder, name), access | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, descriptor)
    return descriptor


def _lock(descriptor: int, deadline: float, root: str) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise StoreInUse(f"{root}: another process is using the store; nothing was removed") from None
            time.sleep(_PAUSE)
