"""What the layer at hand has written so far. Whiteouts spare it, wherever they stand in the archive."""

from __future__ import annotations

from moorage.puller.unpack.decide import Path

__all__ = ["Written"]


class Written:
    """Real paths written by one layer. A directory that holds one of them is spared because it is not empty."""

    def __init__(self) -> None:
        self._paths: set[bytes] = set()
        self._opaque: set[bytes] = set()

    def add(self, path: Path) -> None:
        """Records a path."""
        self._paths.add(b"/".join(path))

    def __contains__(self, path: Path) -> bool:
        return b"/".join(path) in self._paths

    def mark_opaque(self, path: Path) -> bool:
        """Records that a directory hides its lower children; False if it did so before (CVE-2026-95838)."""
        key = b"/".join(path)
        is_new = key not in self._opaque
        self._opaque.add(key)
        return is_new
