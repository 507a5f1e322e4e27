"""What could not be done as a layer asks, for lack of rights or support, and was left out.

Rule: one line for each cause, however many entries it touches, so that nobody reads past what matters.
"""

from __future__ import annotations

from moorage.puller.unpack.decide import Path, shown

__all__ = ["Remarks"]


class Remarks:
    """Causes, each with its first path and how many more there were."""

    def __init__(self) -> None:
        self._causes: dict[str, tuple[str, int]] = {}

    def add(self, cause: str, path: Path) -> None:
        """Notes that ``cause`` touched ``path``."""
        first, count = self._causes.get(cause, ("", 0))
        self._causes[cause] = first or shown(path), count + 1

    def lines(self) -> tuple[str, ...]:
        """One line for each cause, in the order in which they came."""
        return tuple(
            f"{first}: {cause}" if count == 1 else f"{first} and {count - 1} more: {cause}"
            for cause, (first, count) in self._causes.items()
        )
