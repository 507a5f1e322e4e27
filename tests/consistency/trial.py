"""A whole trial: replicas over one bucket, eight clients on tags, one on uploads, and somebody who kills replicas."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.consistency.load import TagLoad
from tests.consistency.replicas import Replicas
from tests.consistency.uploads import UploadLoad

__all__ = ["Report", "trial"]


@dataclass(frozen=True)
class Report:
    """What came of it. ``events``: operations on tags that were judged; ``complaints``: none, if all is well."""

    complaints: list[str]
    events: int
    kills: int
    uploads: int
    moves: int
    outcomes: dict[str, int]

    def __str__(self) -> str:
        counts = (
            f"{self.events} events, {self.kills} kills, {self.uploads} uploads ({self.moves} moves between replicas)"
        )
        ends = "\n".join(f"  {outcome:<30}{count:>8}" for outcome, count in sorted(self.outcomes.items()))
        return f"{counts}, {len(self.complaints)} violations\n{ends}"


def trial(
    roots: Sequence[str],
    *,
    environment: dict[str, str],
    operations: int,
    seed: int,
    kills: bool = True,
    begins: Callable[[], object] = lambda: None,
) -> Report:
    """Runs it with a replica for each of ``roots``, which are one bucket; ``environment`` holds the credentials.

    Args:
        begins: called when the replicas run.
    """
    with Replicas(roots, environment=environment) as group:
        begins()
        # A repository of its own: histories begin with tags that nobody has written.
        tags = TagLoad(group.urls, operations, seed, name=f"team/register-{secrets.token_hex(4)}")
        uploads = UploadLoad(group.urls, seed)
        stop = threading.Event()
        with _threads(stop, lambda: uploads.run(stop), *([lambda: group.harass(stop, seed=seed)] if kills else [])):
            tags.run()
    if group.failure is not None:
        raise group.failure
    complaints = [*tags.judge(), *uploads.complaints]
    return Report(complaints, tags.events, group.kills, uploads.finished, uploads.moves, dict(tags.outcomes))


@contextmanager
def _threads(stop: threading.Event, *works: object) -> Iterator[None]:
    threads = [threading.Thread(target=work) for work in works]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
