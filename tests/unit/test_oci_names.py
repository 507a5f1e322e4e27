"""Repository names, tags and the references that people type."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.registry.oci import (
    Digest,
    DigestInvalid,
    NameInvalid,
    OciError,
    Reference,
    RepositoryName,
    Tag,
    TagInvalid,
    parse_tag_or_digest,
)

from tests.strategies import names, references, tags

_HEX = "a" * 64
_DIGEST = f"sha256:{_HEX}"

GOOD_NAMES = [
    pytest.param("a", id="one letter"),
    pytest.param("0", id="one digit"),
    pytest.param("a__b", id="two underscores"),
    pytest.param("a---b", id="many dashes"),
    pytest.param("a.b/c_d/e-f", id="every separator"),
    pytest.param("a/b/c/d/e/f/g/h/i/j", id="deep"),
    pytest.param("blobs/manifests/tags/list/referrers", id="words of the API"),
    pytest.param("v2/x", id="v2 as a component"),
    pytest.param("a" * 255, id="255 characters"),
]
BAD_NAMES = [
    pytest.param("", id="nothing"),
    pytest.param("a" * 256, id="256 characters"),
    pytest.param("A", id="upper case"),
    pytest.param("/a", id="leading slash"),
    pytest.param("a/", id="trailing slash"),
    pytest.param("a//b", id="empty component"),
    pytest.param(".", id="dot"),
    pytest.param("..", id="dots"),
    pytest.param("a/../b", id="parent component"),
    pytest.param("a/./b", id="dot component"),
    pytest.param("-a", id="leading dash"),
    pytest.param("a-", id="trailing dash"),
    pytest.param("a.", id="trailing dot"),
    pytest.param("_a", id="leading underscore"),
    pytest.param("a___b", id="three underscores"),
    pytest.param("a..b", id="two dots"),
    pytest.param("a._b", id="mixed separators"),
    pytest.param("a\n", id="trailing newline"),
    pytest.param("a b", id="space"),
    pytest.param("a\0b", id="nul"),
    pytest.param("a%2fb", id="escape"),
    pytest.param("a\\b", id="backslash"),
    pytest.param("a:b", id="colon"),
    pytest.param("a@b", id="at sign"),
    pytest.param("a!b", id="our own separator"),
    pytest.param("é", id="latin letter"),
    pytest.param("\u0430", id="cyrillic look-alike"),
    pytest.param("٣", id="arabic digit"),
]
GOOD_TAGS = [
    pytest.param("a", id="one letter"),
    pytest.param("_", id="underscore"),
    pytest.param("Latest", id="upper case"),
    pytest.param("v1.2-3_4", id="every sign"),
    pytest.param("a..b", id="dots inside"),
    pytest.param("a" * 128, id="128 characters"),
]
BAD_TAGS = [
    pytest.param("", id="nothing"),
    pytest.param("a" * 129, id="129 characters"),
    pytest.param(".a", id="leading dot"),
    pytest.param("-a", id="leading dash"),
    pytest.param("..", id="parent"),
    pytest.param("a/b", id="slash"),
    pytest.param("a b", id="space"),
    pytest.param("a\n", id="trailing newline"),
    pytest.param("a\r\nb", id="header splitting"),
    pytest.param("a+b", id="plus"),
    pytest.param("a%", id="percent"),
    pytest.param("é", id="latin letter"),
    pytest.param("٣", id="arabic digit"),
]


@pytest.mark.parametrize("raw", GOOD_NAMES)
def test_a_repository_name_of_the_grammar_is_taken_as_it_is(raw: str) -> None:
    """The grammar of "Pulling manifests" is wide: any depth, and no word is reserved."""
    assert str(RepositoryName.parse(raw)) == raw


@pytest.mark.parametrize("raw", BAD_NAMES)
def test_any_other_repository_name_is_refused(raw: str) -> None:
    """Nothing is repaired, folded or decoded."""
    with pytest.raises(NameInvalid):
        RepositoryName.parse(raw)


@pytest.mark.parametrize("raw", GOOD_TAGS)
def test_a_tag_of_the_grammar_is_taken_as_it_is(raw: str) -> None:
    """Tags keep their case."""
    assert str(Tag.parse(raw)) == raw


@pytest.mark.parametrize("raw", BAD_TAGS)
def test_any_other_tag_is_refused(raw: str) -> None:
    """Nothing is repaired, folded or decoded."""
    with pytest.raises(TagInvalid):
        Tag.parse(raw)


@given(names)
def test_name_text_and_value_are_the_same(name: RepositoryName) -> None:
    """``parse`` undoes ``str``."""
    assert RepositoryName.parse(str(name)) == name


@given(tags)
def test_tag_text_and_value_are_the_same(tag: Tag) -> None:
    """``parse`` undoes ``str``."""
    assert Tag.parse(str(tag)) == tag


@given(st.text(max_size=300))
def test_any_text_is_a_name_or_refused(raw: str) -> None:
    """What a name is made of is in the grammar; nothing but ``NameInvalid`` leaves the parser."""
    try:
        name = RepositoryName.parse(raw)
    except NameInvalid:
        return
    assert str(name) == raw
    assert raw.isascii()
    assert ".." not in raw


@pytest.mark.parametrize("raw", ["sha256:baddigeststring", "a:b", ":", "sha256:", "latest:"])
def test_a_reference_with_a_colon_is_never_read_as_a_tag(raw: str) -> None:
    """A bad digest is a bad digest (conformance: ``bad-digest`` references are 400)."""
    with pytest.raises(DigestInvalid):
        parse_tag_or_digest(raw)


def test_tag_and_digest_references_are_told_apart() -> None:
    """The colon decides."""
    assert parse_tag_or_digest("latest") == Tag("latest")
    assert parse_tag_or_digest(_DIGEST) == Digest("sha256", _HEX)


@pytest.mark.parametrize(
    ("raw", "full"),
    [
        pytest.param("alpine", "registry-1.docker.io/library/alpine:latest", id="bare"),
        pytest.param("alpine:3", "registry-1.docker.io/library/alpine:3", id="with tag"),
        pytest.param("me/app", "registry-1.docker.io/me/app:latest", id="hub user"),
        pytest.param("docker.io/alpine", "registry-1.docker.io/library/alpine:latest", id="hub by name"),
        pytest.param("index.docker.io/me/app:1", "registry-1.docker.io/me/app:1", id="hub by old name"),
        pytest.param("localhost/app", "localhost/app:latest", id="localhost"),
        pytest.param("localhost:5000/a/b:c", "localhost:5000/a/b:c", id="port"),
        pytest.param("r.example/app", "r.example/app:latest", id="host with dot"),
        pytest.param("[::1]:5000/app:x", "[::1]:5000/app:x", id="IPv6"),
        pytest.param(f"r.example/app@{_DIGEST}", f"r.example/app@{_DIGEST}", id="digest only"),
        pytest.param(f"r.example/app:x@{_DIGEST}", f"r.example/app:x@{_DIGEST}", id="tag and digest"),
    ],
)
def test_what_people_type_becomes_the_full_reference(raw: str, full: str) -> None:
    """Docker's defaults are filled in, and nothing else is changed."""
    assert str(Reference.parse(raw)) == full


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("", id="nothing"),
        pytest.param(":tag", id="tag only"),
        pytest.param("@" + _DIGEST, id="digest only"),
        pytest.param("UPPER/app", id="upper case name"),
        pytest.param("r.example/", id="no repository"),
        pytest.param("r.example/app:", id="empty tag"),
        pytest.param("r.example/app@", id="empty digest"),
        pytest.param("r.example/app@sha256:x", id="bad digest"),
        pytest.param("http://r.example/app", id="URL"),
        pytest.param("-r.example/app", id="host with leading dash"),
        pytest.param("r.example:port/app", id="port that is no number"),
        pytest.param("r.example:123456/app", id="port of six digits"),
        pytest.param("user@r.example/app", id="user in the host"),
    ],
)
def test_what_is_no_reference_is_refused(raw: str) -> None:
    """A mistyped reference never reaches another registry."""
    with pytest.raises(OciError):
        Reference.parse(raw)


@given(references)
def test_a_full_reference_reads_back_as_itself(reference: Reference) -> None:
    """``parse`` undoes ``str``, and the digest decides what to ask for."""
    assert Reference.parse(str(reference)) == reference
    assert reference.target == (reference.digest or reference.tag)
