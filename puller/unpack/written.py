"""What the layer at hand has written so far. Whiteouts spare it, wherever they stand in the archive.

Law: where lower layers were removed once nothing of them is left, so a marker at or below such a place costs nothing,
however often it comes (CVE-2026-95838).
"""

from __future__ import annotations

from moorage.puller.unpack.decide import Path

__all__ = ["Written"]


class Written:
    """Real paths written by one layer. A directory that holds one of them is spared because it is not empty."""

    def __init__(self) -> None:
        self._paths: set[bytes] = set()
        self._cleared: set[Path] = set()

    def add(self, path: Path) -> None:
        """Records a path."""
        self._paths.add(b"/".join(path))

    def __contains__(self, path: Path) -> bool:
        return b"/".join(path) in self._paths

    def mark_cleared(self, path: Path) -> None:
        """Records that of lower layers nothing is left below ``path``."""
        self._cleared.add(path)

    def is_cleared(self, path: Path) -> bool:
        """Whether of lower layers nothing is left below ``path``."""
        return bool(self._cleared) and any(path[:end] in self._cleared for end in range(len(path), -1, -1))
