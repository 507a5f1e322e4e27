"""The grammar of storage keys, checked against one written independently."""

from __future__ import annotations

import string
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.storage_backends.base import check_key, check_prefix
from moorage.storage_backends.errors import KeyInvalid

_LETTERS = string.ascii_letters + string.digits + "!._=+-"
_components = st.text(_LETTERS, min_size=1, max_size=20).filter(lambda text: text not in (".", ".."))
_keys = st.lists(_components, min_size=1, max_size=6).map("/".join)
_nearly = st.text(_LETTERS + "/ \n\0%\\ä", max_size=12)


def is_key(text: str) -> bool:
    """Whether the text is a key, said without a regular expression."""
    parts = text.split("/")
    return len(text) <= 1024 and all(
        0 < len(part) <= 255 and part not in (".", "..") and set(part) <= set(_LETTERS) for part in parts
    )


def accepts(check: Callable[[str], str], text: str) -> bool:
    """Whether a check lets the text pass, unchanged."""
    try:
        return check(text) == text
    except KeyInvalid:
        return False


@given(_keys)
def test_what_the_grammar_makes_is_a_key(key: str) -> None:
    """Keys pass, and every prefix of a key is a prefix."""
    assert check_key(key) == key
    assert all(check_prefix(key[:end]) == key[:end] for end in range(len(key) + 1))


@given(_nearly)
def test_a_key_is_what_the_grammar_says(text: str) -> None:
    """Text passes if, and only if, the grammar allows it."""
    assert accepts(check_key, text) == is_key(text)


@given(_nearly)
def test_a_prefix_is_what_a_key_begins_with(text: str) -> None:
    """A prefix passes if, and only if, some key begins with it."""
    possible = text == "" or any(is_key(text + end) for end in ("", "x"))
    assert accepts(check_prefix, text) == possible


@pytest.mark.parametrize(("length", "valid"), [(1023, True), (1024, True), (1025, False)])
def test_a_key_has_at_most_1024_characters(length: int, valid: bool) -> None:
    """The longest key, and one more."""
    key = ("x" * 200 + "/") * 6
    assert accepts(check_key, key[: length - 1] + "x") == valid


@pytest.mark.parametrize(("length", "valid"), [(254, True), (255, True), (256, False)])
def test_a_component_has_at_most_255_characters(length: int, valid: bool) -> None:
    """The longest component, which is the longest name of a file, and one more."""
    assert accepts(check_key, f"a/{'x' * length}") == valid
