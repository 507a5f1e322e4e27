"""Challenges are read as registries write them, and damaged ones not at all."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.auth.challenge import Challenge, parse_challenges

_TOKENS = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,9}", fullmatch=True).map(str.lower)
_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20)
_CHALLENGES = st.builds(Challenge, _TOKENS, st.dictionaries(_TOKENS, _VALUES, max_size=4))

_BASIC = Challenge("basic", {"realm": "r"})


def _bearer(**parameters: str) -> Challenge:
    return Challenge("bearer", parameters)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(
            ['Bearer realm="https://auth.docker.io/token",service="hub",scope="repository:a/b:pull,push"'],
            [_bearer(realm="https://auth.docker.io/token", service="hub", scope="repository:a/b:pull,push")],
            id="Docker Hub",
        ),
        pytest.param(['Basic realm="Registry Realm"'], [Challenge("basic", {"realm": "Registry Realm"})], id="Basic"),
        pytest.param(
            ['Bearer realm="https://h/t" , service="s"', 'Basic realm="r"'],
            [_bearer(realm="https://h/t", service="s"), _BASIC],
            id="two lines (Gitea)",
        ),
        pytest.param(
            ['Basic realm="r", Bearer realm="https://h/t",service="s", Digest nonce="n"'],
            [_BASIC, _bearer(realm="https://h/t", service="s"), Challenge("digest", {"nonce": "n"})],
            id="three on one line",
        ),
        pytest.param(
            ["bearer Realm=https://h/t?a=b,SERVICE=s"], [_bearer(realm="https://h/t?a=b", service="s")], id="no quotes"
        ),
        pytest.param(
            ['Bearer realm = "x" ,, service\t=\t"y"'], [_bearer(realm="x", service="y")], id="odd white space"
        ),
        pytest.param(
            [r'Bearer realm="a\"b\\c, Basic realm=\"d\""'], [_bearer(realm='a"b\\c, Basic realm="d"')], id="escapes"
        ),
        pytest.param(
            ['Bearer realm="https://basic.example/bearer"'],
            [_bearer(realm="https://basic.example/bearer")],
            id="words in a value",
        ),
        pytest.param(["Negotiate"], [Challenge("negotiate")], id="only a scheme"),
        pytest.param(["Negotiate YII=, Basic realm=r"], [Challenge("negotiate"), _BASIC], id="a lone token"),
        pytest.param(["NTLM , Basic realm=r"], [Challenge("ntlm"), _BASIC], id="scheme, space, comma"),
        pytest.param(
            ['Bearer realm="x",error="insufficient_scope"'],
            [_bearer(realm="x", error="insufficient_scope")],
            id="error",
        ),
        pytest.param([], [], id="no header"),
        pytest.param(["", "  ", ",,,"], [], id="empty lines"),
    ],
)
def test_challenges_are_read(lines: list[str], expected: list[Challenge]) -> None:
    """In order, from one line or several."""
    assert parse_challenges(lines) == expected


@pytest.mark.parametrize(
    "line",
    [
        pytest.param('Bearer realm="https://h/t', id="unterminated"),
        pytest.param('Bearer realm="a",realm="b"', id="a name twice"),
        pytest.param('Bearer realm="a"service="b"', id="no comma"),
        pytest.param('Bearer realm="a\x00b"', id="control character"),
        pytest.param('Bearer realm="a\\', id="ends in an escape"),
        pytest.param('"Bearer" realm="a"', id="quoted scheme"),
        pytest.param('Bearer"x"', id="no space"),
        pytest.param('Bearer @="x"', id="no name"),
    ],
)
def test_a_damaged_challenge_is_none(line: str) -> None:
    """Nor is what follows it on its line; what came before, and other lines, hold."""
    assert parse_challenges([line]) == []
    assert parse_challenges([f'Basic realm="r", {line}, Digest nonce="n"', 'Basic realm="r"']) == [_BASIC, _BASIC]


@given(st.lists(st.lists(_CHALLENGES, min_size=1, max_size=3), max_size=3))
def test_what_is_written_is_read(lines: list[list[Challenge]]) -> None:
    """Whatever the values, however they share lines."""
    written = [", ".join(map(str, line)) for line in lines]
    assert parse_challenges(written) == [challenge for line in lines for challenge in line]


@given(st.text() | st.text('Bearer realm="\\,= \t'))
def test_any_text_can_be_read(line: str) -> None:
    """Nothing raises, and nothing is made up: every value stands in the line."""
    for challenge in parse_challenges([line]):
        assert challenge.scheme in line.lower()
        for value in challenge.parameters.values():
            assert value in line.replace("\\", "") or "\\" in line


@pytest.mark.parametrize("piece", ['a="', "a=", "a ", ' "', "\\", ",", "Bearer ", 'a="b",', "a\t=\t", " \t"])
def test_long_headers_take_linear_time(piece: str) -> None:
    """A 64 KiB header of any shape is read in well under a second."""
    started = time.thread_time()  # what it takes, not what others took meanwhile
    parse_challenges([piece * (65536 // len(piece))])
    parse_challenges(["Bearer " + piece * (65536 // len(piece))])
    assert time.thread_time() - started < 1


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "\x00", "\x7f"])
def test_no_header_is_split(value: str) -> None:
    """A control character in a value is refused when the challenge is written."""
    with pytest.raises(ValueError, match="realm"):
        str(Challenge("bearer", {"realm": value}))
