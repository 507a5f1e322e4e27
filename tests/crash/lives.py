"""Lives and deaths in a row: work, die, come back, be judged.

Law: a seed tells the whole story up to the moment of death, and every complaint carries it.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from moorage.storage_backends.base import ObjectStore
from moorage.storage_backends.durability import Disk
from moorage.storage_backends.filesystem import FilesystemStore

from tests.crash.store_life import StoreLedger, live
from tests.crash.volume import Volume
from tests.crash.workers import Say, Worker

__all__ = ["count", "cut_stores", "kill_stores"]

_LIVES: Final = 10
"""Deaths after which a new root begins, so that judging does not take longer and longer."""

_LONGEST: Final = 0.08
"""Seconds that a life lasts at most."""


def count(variable: str, default: int, ci: int) -> int:
    """How many deaths are asked for, by the environment."""
    return int(os.environ.get(variable, ci if os.environ.get("CI") else default))


def cut_stores(kind: str, cuts: int, *, seed: int, disk: type[Disk] = Disk) -> list[str]:
    """Cuts the power of a store ``cuts`` times; returns the complaints of the first life that has any."""
    for start in range(0, cuts, _LIVES):
        with Volume(kind) as volume:
            ledger = StoreLedger(power=True)
            for number in range(start, min(cuts, start + _LIVES)):
                story = f"{kind}-{seed}-{number}"
                complaints = _life(volume.root, ledger, story, disk, volume.cut)
                volume.unmount()
                volume.mount()
                complaints += asyncio.run(_judged(volume.root, ledger))
                if complaints:
                    return [f"{story}: {complaint}" for complaint in complaints]
    return []


def kill_stores(folder: Path, kills: int, *, seed: int) -> list[str]:
    """Kills the processes of a store ``kills`` times; returns the complaints of the first life that has any."""
    for start in range(0, kills, _LIVES):
        root, ledger = folder / f"root-{start}", StoreLedger(power=False)
        for number in range(start, min(kills, start + _LIVES)):
            story = f"kill-{seed}-{number}"
            complaints = _life(root, ledger, story, Disk, lambda: None)
            complaints += asyncio.run(_judged(root, ledger))
            if complaints:
                return [f"{story}: {complaint}" for complaint in complaints]
    return []


def _life(root: Path, ledger: StoreLedger, story: str, disk: type[Disk], end: Callable[[], None]) -> list[str]:
    """Two processes work for a random while, then the end comes; complaints of those that died of something else."""

    def work(name: str) -> Callable[[Say], Awaitable[None]]:
        async def run(say: Say) -> None:
            store = await FilesystemStore.open(root, disk=disk())
            await live(store, say, seed=name, tasks=3)

        return run

    workers = [Worker(work(f"{story}-{number}")) for number in range(2)]
    time.sleep(random.Random(story).uniform(0.0, _LONGEST))
    end()
    return [complaint for worker in workers for complaint in ledger.hear(worker.kill())]


async def _judged(root: Path, ledger: StoreLedger) -> list[str]:
    store: ObjectStore = await FilesystemStore.open(root)
    try:
        return await ledger.judge(store)
    finally:
        await store.close()
