"""A YAML document of the operator's, read so that every complaint says where: file, line, and the way to the value.

Law: nothing is guessed and nothing is passed over. A key that nobody knows names the nearest one that is known; a key
that stands twice, a sample value that was left in, a value of another kind: each refuses the whole file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

import yaml
from moorage.auth.errors import ConfigurationError

__all__ = ["Place", "parse_document"]

_T = TypeVar("_T")
_SAMPLE: Final = re.compile(r"change[-_ ]?(?:me|it)|<[^<>]*>|\byour[-_]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """One value, and where it stands. ``way``: how one gets there, such as ``rules[0].who[1]``."""

    path: str
    way: str
    node: yaml.Node
    loader: yaml.SafeLoader

    def fail(self, why: str) -> NoReturn:
        """Raises ConfigurationError."""
        way = f", {self.way}" if self.way else ""
        raise ConfigurationError(f"{self.path}, line {self.node.start_mark.line + 1}{way}: {why}")

    def fields(self, known: Iterable[str], *, required: Iterable[str] = ()) -> Mapping[str, Place]:
        """The values of a mapping, by key; only what ``known`` holds may stand there, and ``required`` must."""
        known = tuple(known)
        found = self.entries()
        for key, place in found.items():
            if key not in known:
                place.fail(f"there is no such setting; the nearest is {nearest(key, known)!r}")
        for key in required:
            if key not in found:
                self.fail(f"{key!r} is missing")
        return found

    def entries(self) -> dict[str, Place]:
        """The values of a mapping whose keys are texts."""
        if not isinstance(self.node, yaml.MappingNode):
            self.fail("expected 'name: value' lines")
        found: dict[str, Place] = {}
        for key_node, node in self.node.value:
            key = self._at(key_node, self.way).text()
            place = self._at(node, f"{self.way}.{key}" if self.way else key)
            if key in found:
                self._at(key_node, place.way).fail("stands twice")
            found[key] = place
        return found

    def items(self) -> tuple[Place, ...]:
        """The values of a list that is not empty."""
        if not isinstance(self.node, yaml.SequenceNode) or not self.node.value:
            self.fail("expected a list, such as [first, second]")
        return tuple(self._at(node, f"{self.way}[{number}]") for number, node in enumerate(self.node.value))

    def is_mapping(self) -> bool:
        """Whether 'name: value' lines stand here."""
        return isinstance(self.node, yaml.MappingNode)

    def is_list(self) -> bool:
        """Whether a list stands here."""
        return isinstance(self.node, yaml.SequenceNode)

    def scalar(self) -> Any:
        """The value as YAML understands it."""
        if not isinstance(self.node, yaml.ScalarNode):
            self.fail("expected a single value")
        try:
            return self.loader.construct_object(self.node)
        except (yaml.YAMLError, ValueError):
            self.fail(f"cannot read {self.node.value!r}: put it in quotes")

    def text(self) -> str:
        """A text: printable, not empty, and no sample that was left in."""
        value = self.scalar()
        if not isinstance(value, str):
            self.fail(f"expected a text, got {self.node.value!r}: put it in quotes if it is one")
        if not value or not value.isprintable():
            self.fail("expected a text that is not empty, on one line")
        if _SAMPLE.search(value):
            self.fail(f"{value!r} is a sample: put in your own value")
        return value

    def switch(self) -> bool:
        """True or false."""
        value = self.scalar()
        if not isinstance(value, bool):
            self.fail(f"expected true or false, got {self.node.value!r}")
        return value

    def seconds(self, least: int, most: int) -> int:
        """A whole number of seconds within the bounds."""
        value = self.scalar()
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.fail(f"expected {least} to {most} seconds, got {self.node.value!r}")
        return value

    def choice(self, known: Iterable[str]) -> str:
        """One of the texts in ``known``."""
        known, value = tuple(known), self.text()
        if value not in known:
            self.fail(f"{value!r} is unknown; the nearest that is known is {nearest(value, known)!r}")
        return value

    def made(self, make: Callable[[str], _T]) -> _T:
        """What ``make`` makes of the text; its ValueError says what is wrong with it."""
        value = self.text()
        try:
            return make(value)
        except ValueError as exc:
            self.fail(f"{value!r}: {exc}")

    def _at(self, node: yaml.Node, way: str) -> Place:
        return Place(self.path, way, node, self.loader)


def parse_document(path: str, raw: bytes) -> Place:
    """The top of the document in ``raw``. ``path``: what messages call it.

    Raises:
        ConfigurationError: it is no YAML, or empty.
    """
    try:
        loader = yaml.SafeLoader(raw)
        node = loader.get_single_node()
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path} is not YAML: {' '.join(str(exc).split())}") from None
    if node is None:
        raise ConfigurationError(f"{path} is empty")
    return Place(path, "", node, loader)


def nearest(text: str, known: Iterable[str]) -> str:
    """Which of ``known`` is most like ``text``."""
    return difflib.get_close_matches(text, tuple(known), n=1, cutoff=0.0)[0]
