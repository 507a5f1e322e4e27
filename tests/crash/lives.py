"""Lives and deaths in a row: work, die, come back, be judged.

Law: a seed tells the whole story up to the moment of death, and every complaint carries it.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from moorage.storage_backends.base import ObjectStore
from moorage.storage_backends.durability import Disk
from moorage.storage_backends.filesystem import FilesystemStore

from tests.crash import registry_life, store_life
from tests.crash.volume import Volume
from tests.crash.workers import Line, Say, Worker

__all__ = ["REGISTRY", "STORE", "Kind", "count", "cut", "kill"]

_LIVES: Final = 10
"""Deaths after which a new root begins, so that judging does not take longer and longer."""

_CROWD: Final = 6

_LONGEST: Final = 0.08
"""Seconds that a life lasts at most."""


class Ledger(Protocol):
    """What may be true after a death, and the judgement."""

    def hear(self, lines: Iterable[Line]) -> list[str]:
        """Takes down what a worker said; complaints if it died of itself."""

    async def judge(self, store: ObjectStore) -> list[str]:
        """Complaints about what is stored now; what was found is what must be from now on."""


class Live(Protocol):
    """A worker's life."""

    async def __call__(self, store: ObjectStore, say: Say, *, seed: str, tasks: int) -> None:
        """Works with the store until it fails."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of life: what is done, and who judges it (``ledger(power=…)``)."""

    live: Live
    ledger: Callable[..., Ledger]


STORE: Final = Kind(store_life.live, store_life.StoreLedger)
REGISTRY: Final = Kind(registry_life.live, registry_life.RegistryLedger)


def count(variable: str, default: int, ci: int) -> int:
    """How many deaths are asked for, by the environment."""
    return int(os.environ.get(variable, ci if os.environ.get("CI") else default))


def cut(kind: Kind, system: str, cuts: int, *, seed: int, disk: type[Disk] = Disk, crowd: int = _CROWD) -> list[str]:
    """Cuts the power ``cuts`` times on a file system; returns the complaints of the first life that has any.

    Args:
        crowd: how many tasks work at once, in two processes if they are more than one.
    """
    for start in range(0, cuts, _LIVES):
        with Volume(system) as volume:
            ledger = kind.ledger(power=True)
            for number in range(start, min(cuts, start + _LIVES)):
                story = f"{system}-{seed}-{number}"
                complaints = _life(kind, volume.root, ledger, story, disk, crowd, volume.cut)
                volume.unmount()
                volume.mount()
                complaints += asyncio.run(_judged(volume.root, ledger))
                if complaints:
                    return [f"{story}: {complaint}" for complaint in complaints]
    return []


def kill(kind: Kind, folder: Path, kills: int, *, seed: int) -> list[str]:
    """Kills the processes ``kills`` times; returns the complaints of the first life that has any."""
    for start in range(0, kills, _LIVES):
        root, ledger = folder / f"root-{start}", kind.ledger(power=False)
        for number in range(start, min(kills, start + _LIVES)):
            story = f"kill-{seed}-{number}"
            complaints = _life(kind, root, ledger, story, Disk, _CROWD, lambda: None)
            complaints += asyncio.run(_judged(root, ledger))
            if complaints:
                return [f"{story}: {complaint}" for complaint in complaints]
    return []


def _life(
    kind: Kind, root: Path, ledger: Ledger, story: str, disk: type[Disk], crowd: int, end: Callable[[], None]
) -> list[str]:
    """Processes work for a random while, then the end comes; complaints of those that died of something else."""
    processes = min(crowd, 2)

    def work(name: str) -> Callable[[Say], Awaitable[None]]:
        async def run(say: Say) -> None:
            store = await FilesystemStore.open(root, disk=disk())
            await kind.live(store, say, seed=name, tasks=crowd // processes)

        return run

    workers = [Worker(work(f"{story}-{number}")) for number in range(processes)]
    time.sleep(random.Random(story).uniform(0.0, _LONGEST))
    end()
    return [complaint for worker in workers for complaint in ledger.hear(worker.kill())]


async def _judged(root: Path, ledger: Ledger) -> list[str]:
    store: ObjectStore = await FilesystemStore.open(root)
    try:
        return await ledger.judge(store)
    except Exception:  # noqa: BLE001  # whatever it is: after a death the next start has to work
        return [f"nobody can work with it: {traceback.format_exc()}"]
    finally:
        await store.close()
