"""Archives at random: the reader refuses or reads, always in the same way, and nothing else comes of it."""

from __future__ import annotations

from contextlib import suppress
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from moorage.puller.entries import Entry
from moorage.puller.errors import BrokenLayer, UnsafeLayer
from moorage.puller.unpack.decide import decide
from moorage.puller.unpack.limits import Limits
from moorage.puller.unpack.source import TarReader

from tests.archives import random_archive, repair_sums

_LIMITS = Limits(file=2**30, header=2**16)


def _read(raw: bytes, size: int) -> list[tuple[Entry, bytes]] | str:
    """The entries and their content, or what refuses them; checks what holds of every entry."""
    reader, found = TarReader(iter([raw[at : at + size] for at in range(0, len(raw), size)]), _LIMITS), []
    try:
        for entry in reader:
            content = b"".join(map(bytes, reader.data()))
            _check(entry, content)
            found.append((entry, content))
    except (BrokenLayer, UnsafeLayer) as exc:
        return str(exc)
    return found


def _check(entry: Entry, content: bytes) -> None:
    stored = entry.size if entry.extents is None else sum(length for _, length in entry.extents)
    assert len(content) == stored
    assert 0 < len(entry.name) <= _LIMITS.path
    assert b"\0" not in entry.name + entry.link
    assert 0 <= entry.uid < 2**32 - 1 > entry.gid >= 0
    assert 0 <= entry.mode <= 0o7777
    with suppress(UnsafeLayer):
        decide(entry, _LIMITS)


@given(st.randoms(use_true_random=False), st.sampled_from([1, 511, 513, 4096]))
@settings(max_examples=150, deadline=None)
def test_archives_at_random_have_one_reading(chance: Random, size: int) -> None:
    """However the stream is cut."""
    raw = random_archive(chance)
    assert _read(raw, size) == _read(raw, 1 << 20)


@given(st.lists(st.binary(max_size=600), max_size=4))
@settings(max_examples=150, deadline=None)
def test_noise_is_refused_or_read(parts: list[bytes]) -> None:
    """Bytes that no program wrote, with right checksums."""
    raw = repair_sums(b"".join(part.ljust(512, b"\0") for part in parts))
    assert _read(raw, 512) == _read(raw, 1 << 20)


def test_most_archives_at_random_are_read() -> None:
    """Else the tests here, and the comparison with other programs, would say little."""
    chance = Random(1)
    read = [not isinstance(_read(random_archive(chance), 1 << 20), str) for _ in range(300)]
    assert 100 < sum(read) < 290
