"""How much is written to a file at a time."""

from __future__ import annotations

__all__ = ["PIECE"]

PIECE = 128 * 1024
"""Bytes. ext4 (Linux 6) takes larger folios for larger writes, and they cost more than they save: 512 MiB in writes of
1 MiB took 500 ms of processor time, of 128 KiB 100 ms, of 16 KiB 190 ms. On tmpfs all cost the same."""
