"""Which files stay out of an image: the rules of ``.dockerignore`` (docs.docker.com "build context", patternmatcher).

A line is a pattern for paths from the root of the directory, a leading ``/`` means nothing. ``*`` and ``?`` stay within
a component, ``**`` is any number of them, ``[a-z]`` and ``\\`` are as in a shell. What matches a directory matches all
below it. ``!`` takes back; the last line that matches decides. ``#`` begins a comment.
Law: matching is over bytes read as UTF-8, whatever the locale, so that every machine leaves out the same.
"""

from __future__ import annotations

import posixpath
import re

from moorage.puller.errors import PackError
from moorage.registry.oci.values import dataclass

__all__ = ["Ignore", "read_ignore_file"]

_MAX_SIZE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Rule:
    """One line. ``matches``: a path itself."""

    matches: re.Pattern[str]
    takes_back: bool


@dataclass(frozen=True, slots=True)
class Ignore:
    """Rules, in order; none leave nothing out."""

    rules: tuple[_Rule, ...] = ()

    @classmethod
    def parse(cls, content: bytes, *, name: str) -> Ignore:
        """The rules of a file. ``name``: for messages.

        Raises:
            PackError: which line cannot be understood.
        """
        lines = _text(content).removeprefix("\ufeff").splitlines()
        return cls(tuple(rule for number, line in enumerate(lines, 1) if (rule := _parse(line, f"{name}:{number}"))))

    @property
    def has_exceptions(self) -> bool:
        """Whether something below what is left out may still be in."""
        return any(rule.takes_back for rule in self.rules)

    def leaves_out(self, name: bytes) -> bool:
        """Whether the path stays out; ``name``: from the root, without a slash at its ends."""
        parts = _text(name).split("/")
        paths = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        is_out = False
        for rule in self.rules:
            if rule.takes_back == is_out and any(map(rule.matches.fullmatch, paths)):
                is_out = not rule.takes_back
        return is_out


def read_ignore_file(path: str) -> Ignore:
    """The rules of the file at ``path``.

    Raises:
        PackError: it cannot be understood.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read(_MAX_SIZE + 1)
    if len(content) > _MAX_SIZE:
        raise PackError(f"{path}: larger than {_MAX_SIZE} bytes")
    return Ignore.parse(content, name=path)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _parse(line: str, place: str) -> _Rule | None:
    """The rule of a line; None for a comment or nothing."""
    if line.startswith("#") or not line.strip():
        return None
    pattern = line.strip()
    takes_back = pattern.startswith("!")
    pattern = pattern.removeprefix("!").strip()
    if not pattern:
        raise PackError(f"{place}: ! without a pattern")
    cleaned = posixpath.normpath(pattern).lstrip("/")
    if cleaned in (".", ""):
        return None  # docker: the root itself cannot be left out
    try:
        return _Rule(re.compile(_to_regex(cleaned), re.DOTALL), takes_back)
    except (re.error, IndexError):
        raise PackError(f"{place}: {pattern!a} is no pattern") from None


def _to_regex(pattern: str) -> str:
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            at += 3 if pattern.startswith("/", at + 2) else 2
            out.append("(?:.*/)?" if at < len(pattern) else ".*")
            continue
        if char == "[":
            end = _end_of_class(pattern, at)
            out.append(_to_class(pattern[at + 1 : end]))
            at = end
        elif char == "\\":
            at += 1
            out.append(re.escape(pattern[at]))
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char))
        at += 1
    return "".join(out)


def _end_of_class(pattern: str, start: int) -> int:
    at = start + (2 if pattern.startswith("[^", start) else 1)
    while pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at


def _to_class(content: str) -> str:
    """A class of characters; a slash is in none."""
    negated = content.startswith("^")
    body = content.removeprefix("^").replace("[", r"\[")
    if not body:
        raise re.error("an empty class")
    return f"(?!/)[{'^' if negated else ''}{body}]"
