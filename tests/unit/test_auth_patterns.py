"""Patterns mean what their law says, and a hostile name costs no more than any other."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.auth.patterns import RepositoryPattern, TextPattern, is_repository
from moorage.registry.oci import NameInvalid, RepositoryName

_WORDS = st.text("ab", min_size=1, max_size=4)
_NAMES = st.lists(_WORDS, min_size=1, max_size=5).map("/".join)
_GLOBS = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=5).map(lambda parts: _single("".join(parts)))
_PATTERNS = st.lists(st.one_of(st.just("**"), _GLOBS), min_size=1, max_size=5).map("/".join)


def _single(glob: str) -> str:
    while "**" in glob:
        glob = glob.replace("**", "*")
    return glob


def _meant(pattern: list[str], name: list[str]) -> bool:
    """The law by itself, without a thought for speed."""
    if not pattern or not name:
        return not pattern and not name
    if pattern[0] == "**":
        return any(_meant(pattern[1:], name[taken:]) for taken in range(1, len(name) + 1))
    return _fits(pattern[0], name[0]) and _meant(pattern[1:], name[1:])


@cache
def _fits(glob: str, text: str, stops: str = "") -> bool:
    if not glob:
        return not text
    if glob[0] == "*":
        return _fits(glob[1:], text, stops) or (bool(text) and text[0] not in stops and _fits(glob, text[1:], stops))
    return bool(text) and text[0] == glob[0] and _fits(glob[1:], text[1:], stops)


@given(_PATTERNS, _NAMES)
def test_repository_patterns_mean_what_the_law_says(pattern: str, name: str) -> None:
    """Compared with the law written down as plainly as it goes."""
    assert RepositoryPattern(pattern).matches(name) == _meant(pattern.split("/"), name.split("/"))


@given(st.text("ab:/*", min_size=1, max_size=8).map(_single), st.text("ab:/", max_size=8))
def test_text_patterns_mean_what_the_law_says(pattern: str, text: str) -> None:
    """A star stops at a slash and at a colon."""
    assert TextPattern(pattern).matches(text) == _fits(pattern, text, "/:")


@given(st.text("ab:/*", max_size=6).map(_single), st.text("ab:/", max_size=8))
def test_a_rest_is_any_rest(head: str, text: str) -> None:
    """Two stars at the end of a text take what is left, whatever it is."""
    head = head.rstrip("*")
    expected = any(_fits(head, text[:cut], "/:") for cut in range(len(text) + 1))
    assert TextPattern(f"{head}**").matches(text) == expected


@pytest.mark.parametrize(
    ("pattern", "name", "is_meant"),
    [
        ("apps/*", "apps/web", True),
        ("apps/*", "apps/web/cache", False),
        ("apps/**", "apps/web/cache", True),
        ("apps/**", "apps", False),
        ("apps/**", "appsecret/x", False),
        ("**", "apps", True),
        ("*", "apps/web", False),
        ("**/cache", "apps/web/cache", True),
        ("**/cache", "cache", False),
        ("team-*/web", "team-a/web", True),
        ("a.b", "axb", False),
    ],
)
def test_what_operators_write(pattern: str, name: str, is_meant: bool) -> None:
    """The examples of the documentation; a dot is a dot, and a prefix ends where the pattern says."""
    assert RepositoryPattern(pattern).matches(name) is is_meant


@pytest.mark.parametrize(
    "text", ["", "/", "a//b", "a/", "/a", "A/*", "a**", "a/**b", "a:b", "a b", "a/../b", "x" * 256]
)
def test_what_no_repository_can_match_is_refused(text: str) -> None:
    """A pattern that could never hold is a mistake of whoever wrote it."""
    with pytest.raises(ValueError, match=r"no repository|stands alone"):
        RepositoryPattern(text)


@pytest.mark.parametrize("text", ["", "a**b", "a\nb", "**b**"])
def test_texts_that_are_no_patterns(text: str) -> None:
    """Nothing is repaired."""
    with pytest.raises(ValueError, match=r"printable|only at the end"):
        TextPattern(text)


def test_a_claim_cannot_grow_over_its_neighbours() -> None:
    """T6: an environment named like the end of the pattern is still an environment."""
    pattern = TextPattern("repo:org/*:ref:refs/heads/main")
    assert pattern.matches("repo:org/app:ref:refs/heads/main")
    assert not pattern.matches("repo:org/app:environment:x:ref:refs/heads/main")
    assert not pattern.matches("repo:org/app/evil:ref:refs/heads/main")
    assert not pattern.matches("repo:org/app:ref:refs/heads/main\n")


def test_no_name_makes_matching_slow() -> None:
    """Twenty stars over a name of 255 characters: with backtracking this would not end while anybody waits."""
    name = "/".join(["a" * 84] * 3)
    assert not RepositoryPattern("**/" + "*a" * 20 + "/**/" + "*a" * 20 + "b").matches(name)
    assert not TextPattern("*a" * 20 + "b").matches("a" * 10_000)


@given(st.one_of(_NAMES, st.text("aA0._-/:*", max_size=12), st.just("a" * 256), st.just("a" * 255)))
def test_one_grammar_of_names(name: str) -> None:
    """Policy and registry agree on what a repository's name is (rule T6); the packages do not know each other."""
    try:
        RepositoryName.parse(name)
    except NameInvalid:
        assert not is_repository(name)
    else:
        assert is_repository(name)
