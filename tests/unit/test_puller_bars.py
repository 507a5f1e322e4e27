"""What is drawn on a terminal: every line fits, the most important rows stay, and all states can be told apart."""

from __future__ import annotations

import pytest
from moorage.puller.events import (
    BlobDone,
    BlobProgress,
    BlobSkipped,
    BlobStarted,
    Event,
    Finished,
    LayerUnpacked,
    Resolved,
    Resumed,
    Retried,
    Times,
    UnpackProgress,
    Waiting,
)
from moorage.puller.show.bars import Bars, draw
from moorage.puller.show.progress import Progress
from moorage.registry.oci import Descriptor, Digest
from moorage.registry.oci.media_types import OCI_CONFIG, OCI_LAYER

CONFIG = Descriptor(OCI_CONFIG, Digest.of(b"config"), 1000)
LAYERS = [Descriptor(OCI_LAYER, Digest.of(b"%d" % number), 10_000_000) for number in range(30)]


class Transfer:
    """A progress with a clock that the test turns."""

    def __init__(self, count: int = 3) -> None:
        self.now = 100.0
        self.layers = LAYERS[:count]
        self.progress = Progress(lambda: self.now)
        size = sum(layer.size for layer in self.layers)
        self.say(Resolved("host/app:v1", CONFIG, count + 1, size + CONFIG.size, (CONFIG, *self.layers)))

    def say(self, *events: Event) -> None:
        """Each event."""
        for event in events:
            self.progress(event)

    def lines(self, width: int = 100, height: int = 24) -> list[str]:
        """What is drawn, without styles."""
        lines = draw(self.progress, self.now, moving="fetching", width=width, height=height)
        return ["".join(text for text, _ in line) for line in lines]

    def line_of(self, layer: Descriptor, width: int = 100) -> str:
        """The layer's line."""
        (line,) = [line for line in self.lines(width) if layer.digest.hex[:12] in line]
        return line


def test_each_state_has_its_words() -> None:
    """Waiting, fetching with bytes, rate and time left, unpacking, retrying, done."""
    transfer = Transfer()
    first, second, third = transfer.layers
    assert "waiting" in transfer.line_of(first)
    transfer.say(Waiting(second, "another process fetches it"), BlobSkipped(third, "exists"))
    assert transfer.line_of(second).rstrip().endswith("another process fetches it")
    assert "already here" in transfer.line_of(third)
    transfer.say(BlobStarted(first))
    for _ in range(5):
        transfer.now += 0.5
        transfer.say(BlobProgress(first, 1_000_000))
    line = transfer.line_of(first)
    assert "fetching" in line
    assert "5.0 / 10.0 MB" in line
    assert "2.0 MB/s" in line
    assert "2.5 s left" in line
    transfer.say(Retried(first, "connection \x1b[2Jreset", 1.0))
    assert "retrying  connection \\x1b[2Jreset" in transfer.line_of(first)
    transfer.say(BlobProgress(first, 5_000_000), UnpackProgress(first, 2_000_000), BlobDone(first))
    assert "unpacking" in transfer.line_of(first)
    assert "2.0 / 10.0 MB" in transfer.line_of(first)
    transfer.say(UnpackProgress(first, 8_000_000), LayerUnpacked(first, 42, 30_000_000))
    assert transfer.line_of(first).startswith("✓ ")
    assert "2.5 s, 42 entries, 1 retry" in transfer.line_of(first)


def test_what_was_resumed_counts_at_once() -> None:
    """And a rate is of what comes now."""
    transfer = Transfer(1)
    (layer,) = transfer.layers
    transfer.say(BlobStarted(layer), Resumed(layer, 6_000_000))
    assert "6.0 / 10.0 MB" in transfer.line_of(layer)
    assert "MB/s" not in transfer.line_of(layer)


@pytest.mark.parametrize("count", [0, 1, 7, 30])
@pytest.mark.parametrize("height", [1, 4, 10, 50])
def test_everything_fits(height: int, count: int) -> None:
    """Whatever the terminal's size, also while it changes."""
    transfer = Transfer(count)
    for number, layer in enumerate(transfer.layers):
        transfer.say(BlobStarted(layer), BlobProgress(layer, 400_000 * number), Retried(layer, "x" * 200, 1))
        if number % 3:
            transfer.say(BlobProgress(layer, 1), Waiting(layer, "y" * 200))
        if number % 2:
            transfer.say(BlobDone(layer))
    transfer.now += 1
    for width in range(1, 130):
        lines = transfer.lines(width, height)
        assert max(map(len, lines)) <= width
        assert len(lines) <= max(height - 1, 3)


def test_without_room_the_busy_rows_stay() -> None:
    """The others are counted."""
    transfer = Transfer(30)
    for layer in transfer.layers[:5]:
        transfer.say(BlobStarted(layer), BlobDone(layer))
    busy = transfer.layers[20]
    transfer.say(BlobStarted(busy), BlobProgress(busy, 5))
    lines = transfer.lines(height=8)
    assert any(busy.digest.hex[:12] in line and "fetching" in line for line in lines)
    assert lines[-2] == "  … and 22 waiting, 5 done"


def test_the_total_has_rate_and_time_left_until_the_end() -> None:
    """Then the time that it took stands for it."""
    transfer = Transfer(2)
    first, second = transfer.layers
    transfer.say(BlobStarted(first), BlobStarted(second))
    for _ in range(4):
        transfer.now += 0.5
        transfer.say(BlobProgress(first, 1_000_000), BlobProgress(second, 1_000_000))
    assert transfer.lines()[-1].split() == ["total", "8.0", "/", "20.0", "MB", "4.7", "MB/s", "2.6", "s", "left"]
    transfer.say(Finished(CONFIG, 20_000_000, 4.0, Times()))
    assert "total" not in transfer.lines()[-1]


def test_unpacking_has_a_rate_and_a_time_of_its_own() -> None:
    """Which the total tells, once everything is here."""
    transfer = Transfer(1)
    (layer,) = transfer.layers
    transfer.say(
        BlobStarted(CONFIG), BlobDone(CONFIG), BlobStarted(layer), BlobProgress(layer, layer.size), BlobDone(layer)
    )
    for _ in range(4):
        transfer.now += 0.5
        transfer.say(UnpackProgress(layer, 1_000_000))
    assert " ".join(transfer.line_of(layer).split()[2:]) == "unpacking 4.0 / 10.0 MB 2.0 MB/s 3.0 s left"
    assert " ".join(transfer.lines()[-1].split()) == "total unpacked 4.0 / 10.0 MB 2.0 MB/s 3.0 s left"


def test_what_is_quick_draws_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Where all is here already, only the last line is said."""
    with Bars() as show:
        show(Resolved("host/app:v1", CONFIG, 2, 2000))
        show(BlobSkipped(LAYERS[0], "exists"))
        show(Finished(CONFIG, 0, 0.12, Times(network=0.1)))
    assert capsys.readouterr().err == "0 B in 0.1 s: network 0.1 s\n"
