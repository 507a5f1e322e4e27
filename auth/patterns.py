"""Patterns: how the operator's file names many repositories, tags or claims at once.

Law: a ``*`` means something in configuration only; a name that a client sends is a name or nothing (rule T6).
In a repository pattern ``*`` is any run of characters within one component and ``**``, as a whole component, one or
more components: ``apps/*`` is ``apps/web``, ``apps/**`` is ``apps/web`` and ``apps/web/cache``, never ``apps``.
In a text (a tag, a claim) ``*`` is any run without ``/`` and ``:``, so that no part of a compound claim such as
``repo:org/app:ref:refs/heads/main`` can grow over its neighbours; ``**``, at the end only, is any rest.
Matching takes linear time per wildcard: each run but the last is as short as it can be, and kept (atomic groups).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

__all__ = ["RepositoryPattern", "TextPattern", "is_repository"]

_LONGEST: Final = 255  # distribution-spec: clients limit the name to this
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_ANY_DEPTH = "**"


def is_repository(name: str) -> bool:
    """Whether ``name`` may be the name of a repository, by the grammar of the distribution spec."""
    return len(name) <= _LONGEST and _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class RepositoryPattern:
    """A pattern of repository names.

    Raises:
        ValueError: it is none; the message says what is wrong with it.
    """

    text: str
    _regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_regex", re.compile(_repository_regex(self.text)))

    def matches(self, repository: str) -> bool:
        """Whether ``repository``, which is a name by the grammar, is one of those meant."""
        return self._regex.fullmatch(repository) is not None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class TextPattern:
    """A pattern of tags or claims; without a ``*`` it is the text itself.

    Raises:
        ValueError: it is none; the message says what is wrong with it.
    """

    text: str
    _regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        head, rest = (self.text[:-2], "(?s:.*)") if self.text.endswith(_ANY_DEPTH) else (self.text, "")
        if not self.text or not self.text.isprintable():
            raise ValueError("a pattern is at least one printable character")
        if _ANY_DEPTH in head:
            raise ValueError("'**' may stand only at the end")
        object.__setattr__(self, "_regex", re.compile(_run(head, "[^/:]", is_open=bool(rest)) + rest))

    def matches(self, text: str) -> bool:
        """Whether ``text`` is one of those meant."""
        return self._regex.fullmatch(text) is not None

    @property
    def is_everything(self) -> bool:
        """Whether nothing but wildcards stands in it."""
        return not self.text.strip("*")

    def __str__(self) -> str:
        return self.text


def _repository_regex(text: str) -> str:
    parts = text.split("/")
    if any(_ANY_DEPTH in part and part != _ANY_DEPTH for part in parts):
        raise ValueError("'**' stands alone between slashes, as in 'apps/**'")
    if not is_repository(re.sub(r"\*+", "x", text)):  # if a name matches it, then also the one with an x for each star
        raise ValueError(
            "no repository can have such a name: lower-case letters, digits, and . _ - within; '/' between"
        )
    segments: list[list[str]] = [[]]  # what stands between one ``**`` and the next
    for part in parts:
        if part == _ANY_DEPTH:
            segments.append([])
        else:
            segments[-1].append(_run(part, "[^/]"))
    first, *others = ("/".join(segment) for segment in segments)
    if not others:
        return first
    *middle, last = others
    any_depth = "(?:[^/]+/)+"
    between = "".join(f"(?>{any_depth}?{segment}/)" if segment else "[^/]+/" for segment in middle)
    end = f"{any_depth}{last}" if last else "[^/]+(?:/[^/]+)*"
    return f"{first}/{between}{end}" if first else f"{between}{end}"


def _run(glob: str, char: str, *, is_open: bool = False) -> str:
    """The regular expression of literals and stars, each star over ``char``; open: something follows it."""
    first, *others = (re.escape(part) for part in re.sub(r"\*+", "*", glob).split("*"))
    if not others:
        return first
    *middle, last = others
    taken = "".join(f"(?>{char}*?{part})" for part in middle)
    end = f"(?>{char}*?{last})" if is_open and last else f"{char}*{last}"
    return f"{first}{taken}{end}"
