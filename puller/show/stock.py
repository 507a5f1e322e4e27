"""The store for people: the list of images, and the picture of an image's layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from moorage.puller.show.text import human_size, printable, short_digest
from moorage.puller.stock.images import History, Step, StoredImage

__all__ = ["history_lines", "human_age", "image_lines"]

_HEADINGS = ("NAME", "TAG", "DIGEST", "PLATFORM", "SIZE", "SHARED", "AGE")
_RIGHT = {4, 5, 6}
_BAR = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"
_AGES = ((31_557_600, "year"), (2_629_800, "month"), (604_800, "week"), (86_400, "day"), (3600, "hour"), (60, "minute"))


def image_lines(images: Sequence[StoredImage], *, now: datetime | None = None) -> Iterator[str]:
    """A table with a heading; nothing for an empty store."""
    rows = [_HEADINGS, *(_row(image, now or datetime.now(UTC)) for image in images)] if images else []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            text.rjust(width) if at in _RIGHT else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def history_lines(history: History, *, now: datetime | None = None, width: int = 120) -> Iterator[str]:
    """A line for what it is, then one a step, oldest first: size, a bar as long as its share, age, what it did."""
    layers = [step.layer for step in history.steps if step.layer]
    yield printable(f"{history.name}  {history.platform}  {history.descriptor.digest}")
    yield f"{len(layers)} layer{'' if len(layers) == 1 else 's'}, {human_size(history.size)} compressed"
    largest = max((layer.size for layer in layers), default=0)
    for step in history.steps:
        size = human_size(step.layer.size) if step.layer else ""
        share = step.layer.size / largest if step.layer and largest else 0
        head = f"{size:>9} {_bar(share)} {_age(step.created, now or datetime.now(UTC)):>10}  "
        yield (head + _shortened(_deed(step), width - len(head))).rstrip()


def human_age(seconds: float) -> str:
    """``3 days``, ``1 year``; ``now`` below a minute."""
    for unit, name in _AGES:
        if seconds >= unit:
            count = int(seconds // unit)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return "now"


def _row(image: StoredImage, now: datetime) -> tuple[str, ...]:
    name, mark, tag = image.name.partition("@") if "@" in image.name else image.name.rpartition(":")
    return (
        printable(name),
        printable(tag) if mark == ":" else "-",
        short_digest(image.descriptor.digest),
        printable(" ".join(image.platforms)),
        human_size(image.size),
        human_size(image.shared),
        _age(image.created, now),
    )


def _age(moment: datetime | None, now: datetime) -> str:
    return human_age((now - moment).total_seconds()) if moment else ""


def _bar(share: float) -> str:
    """A bar of ``share`` of the full width; something, however little, is seen."""
    eighths = max(round(share * _BAR * 8), 1 if share else 0)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()).ljust(_BAR)


def _deed(step: Step) -> str:
    """What made the step, without the shell's wrapping that builders write."""
    text = " ".join(step.created_by.split()) or step.comment
    if not text and step.layer:
        return f"layer {short_digest(step.layer.digest)}"
    return text.removeprefix("/bin/sh -c #(nop) ").removeprefix("/bin/sh -c ")


def _shortened(text: str, width: int) -> str:
    shown = printable(text)
    return shown if len(shown) <= width else f"{shown[: max(width - 1, 0)]}…"
