"""Challenges: what a ``WWW-Authenticate`` header asks for (RFC 9110, section 11.6.1), read and written.

Law: reading is total and takes linear time. Whatever stands in a header, the result is the challenges that are well
formed; at the first thing that is not, the rest of that line is left out, since any guess at it might be what an
attacker meant (rule N2). Of two readings of one line there is never a choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["Challenge", "parse_challenges"]

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # the grammar of a token, not one
_GAP = re.compile(r"[ \t,]*")
_SCHEME = re.compile(_TOKEN)
_LONE_TOKEN = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|\Z)")
_END = re.compile(r"[ \t]*(?:,|\Z)")
# Values outside quotes are not held to the grammar of a token: registries write realm=https://... without quotes.
_QUOTED = r'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\x00-\x1f\x7f])*)"'
_BARE = r'([^\s,"\x00-\x1f\x7f]*)'
_PARAMETER = re.compile(rf"[ \t,]*({_TOKEN})[ \t]*=[ \t]*(?:{_QUOTED}|{_BARE})")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in. ``scheme`` and the names of ``parameters`` are lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The challenge as it stands in a header, every value in quotes.

        Raises:
            ValueError: a value holds a control character.
        """
        return f"{self.scheme.capitalize()} {','.join(map(_written, self.parameters.items()))}".rstrip()


def parse_challenges(lines: Iterable[str]) -> list[Challenge]:
    """The challenges of all lines of the header, in order; several may share a line."""
    return [challenge for line in lines for challenge in _parse_line(line)]


def _parse_line(line: str) -> Iterator[Challenge]:
    position = _after(_GAP, line, 0)
    while scheme := _SCHEME.match(line, position):
        parameters: dict[str, str] | None = {}
        if lone := _LONE_TOKEN.match(line, scheme.end()):  # Negotiate and its like: of no use to us
            position = lone.end()
        elif _END.match(line, scheme.end()):
            position = scheme.end()
        else:
            parameters, position = _parse_parameters(line, scheme.end())
        if parameters is None:
            return
        yield Challenge(scheme.group().lower(), parameters)
        position = _after(_GAP, line, position)


def _parse_parameters(line: str, position: int) -> tuple[dict[str, str] | None, int]:
    """The parameters from ``position`` on, and where they end; None where they are damaged."""
    found: dict[str, str] = {}
    if line[position] not in " \t":
        return None, position
    while match := _PARAMETER.match(line, position):
        name, quoted, bare = match.groups()
        if name.lower() in found or not _END.match(line, match.end()):
            return None, position
        found[name.lower()] = bare if quoted is None else _ESCAPED.sub(r"\1", quoted)
        position = match.end()
    return found or None, position


def _after(pattern: re.Pattern[str], line: str, position: int) -> int:
    match = pattern.match(line, position)
    return match.end() if match else position


def _written(parameter: tuple[str, str]) -> str:
    name, value = parameter
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError(f"the parameter {name} of a challenge holds a control character")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}="{escaped}"'
